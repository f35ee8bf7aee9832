import type { Roll } from '../../../node/roll/roll.ts'
import { isDown } from '../../../node/roll/roll.ts'
import type { RollAction, Sight, View } from '../../../node/roll/roll-step.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import type { Random } from '../../../tools/lab/random.ts'

export const RULES = {
  wave: 2,
  holders: 2,
  stopAfter: 100,
  evenInUse: false,
  warningSeconds: 60,
  window: '',
  wake: false,
  timeoutSeconds: 600,
  patienceSeconds: 900,
} as const

/** A roll that is about to begin. */
export function newRoll(names: readonly string[], over: Partial<Roll> = {}): Roll {
  return {
    format: 1,
    roll: 'roll-1',
    group: 'lab',
    epoch: 1,
    sequence: 1,
    operator: 'id-operator',
    operatorName: 'operator',
    attended: true,
    image: 'win',
    release: 3,
    rules: RULES,
    state: 'running',
    why: '',
    startedAt: 0,
    endedAt: 0,
    idleSince: 0,
    forgiven: 0,
    machines: names.map((name) => ({
      id: name,
      name,
      turn: 'waiting',
      why: '',
      since: 0,
      askedAt: 0,
      process: '',
      receipt: '',
    })),
    ...over,
  }
}

/** What a machine of the model is, and what is to become of it. */
export interface ModelMachine {
  readonly id: string
  up: boolean
  process: number
  inUse: boolean
  held: Bitmap
  receipt: { key: string; release: number; verified: boolean; reason: string } | undefined
  /** Ticks until it is up again; undefined: not before somebody turns it on. */
  backIn: number | undefined
  canWake: boolean
}

/** A lab of which anything may be expected: machines die, are used, forget blocks, restore wrongly, or never come back. */
export class LabModel {
  readonly machines: ModelMachine[]
  now = 1
  readonly #random: Random
  readonly #blocks: number

  constructor(names: readonly string[], blocks: number, random: Random) {
    this.#random = random
    this.#blocks = blocks
    this.machines = names.map((id) => ({
      id,
      up: random.next() < 0.9,
      process: 1,
      inUse: random.next() < 0.1,
      held: this.#some(random.next() < 0.7 ? 0 : random.next()),
      receipt: undefined,
      backIn: undefined,
      canWake: random.next() < 0.5,
    }))
  }

  view(windowOpen = true): View {
    return {
      now: this.now,
      windowOpen,
      blocks: this.#blocks,
      sights: this.machines.map(
        ({ id, up, process, inUse, held, receipt, canWake }): Sight => ({
          id,
          up,
          process: up ? String(process) : '',
          inUse,
          image: 'win',
          newest: 3,
          held,
          told: true,
          canWake,
          ...(receipt === undefined ? {} : { receipt }),
        }),
      ),
    }
  }

  /** One tick of `ms`; what happens by itself happens as often as `trouble` says. */
  tick(ms: number, trouble: number): void {
    this.now += ms
    for (const machine of this.machines) {
      if (!machine.up && machine.backIn !== undefined && machine.backIn-- <= 0) this.#start(machine)
      if (this.#random.next() >= trouble) continue
      const what = this.#random.below(4)
      if (what === 0 && machine.up) this.#stop(machine, this.#random.next() < 0.7 ? this.#random.below(15) : undefined)
      if (what === 1) machine.inUse = !machine.inUse
      if (what === 2) machine.held = this.#some(this.#random.next() * 0.3, machine.held)
      if (what === 3 && !machine.up) machine.backIn ??= 3
    }
  }

  /** What becomes of a machine that is told to do something; some do not hear it. */
  act(action: RollAction): 'done' | 'in use' {
    const machine = this.machines.find(({ id }) => id === action.id)!
    const luck = this.#random.next()
    if (luck < 0.1) return 'done'
    if (action.type === 'wake') {
      if (!machine.up && luck < 0.8) machine.backIn = this.#random.below(20)
      return 'done'
    }
    if (machine.inUse && luck < 0.2) return 'in use'
    if (!machine.up) return 'done'
    this.#stop(machine, luck < 0.95 ? this.#random.below(25) : undefined)
    const verified = luck < 0.85
    machine.held = verified ? this.#some(0) : machine.held
    const key = `receipt-${this.now}`
    machine.receipt = { key, release: 3, verified, reason: verified ? '' : 'BLOCKS_UNAVAILABLE' }
    return 'done'
  }

  /** The blocks of which the rules of a roll would be broken if `ids` went down; worked out block by block. */
  broken(document: Roll, ids: readonly string[]): number[] {
    const turns = new Map(document.machines.map((machine) => [machine.id, machine]))
    const isAway = ({ id, up }: ModelMachine): boolean => !up || (turns.has(id) && isDown(turns.get(id)!))
    const isGivenUp = ({ id, up }: ModelMachine): boolean =>
      !up && ['failed', 'skipped'].includes(turns.get(id)?.turn ?? '')
    return Array.from({ length: this.#blocks }, (_, block) => block).filter((block) => {
      const holders = this.machines.filter((one) => one.held.has(block))
      const left = holders.filter((one) => !isAway(one) && !ids.includes(one.id)).length
      const concerned = holders.some((one) => ids.includes(one.id) || (isAway(one) && !isGivenUp(one)))
      return concerned && left < document.rules.holders
    })
  }

  #stop(machine: ModelMachine, backIn: number | undefined): void {
    machine.up = false
    machine.backIn = backIn
  }

  #start(machine: ModelMachine): void {
    machine.up = true
    machine.process++
    machine.backIn = undefined
  }

  /** `from` without a share of it. */
  #some(share: number, from?: Bitmap): Bitmap {
    const held = new Bitmap(this.#blocks)
    for (let block = 0; block < this.#blocks; block++)
      if ((from === undefined || from.has(block)) && this.#random.next() >= share) held.set(block)
    return held
  }
}
