import type { Fleet, Seen, Stored } from '../../../node/roll/fleet.ts'
import { isNewer, parseRoll, type Roll } from '../../../node/roll/roll.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { MeshError } from '../../../protocol/errors.ts'

const BLOCKS = 16
/** Milliseconds that a machine of the model takes to be back. */
const BACK_MS = 5_000

interface Pc {
  readonly id: string
  up: boolean
  process: number
  backAt: number
  receipt: number
  resets: number
  stored: Roll | undefined
}

/** The machines of a group that reset when they are told to, and keep documents as the real ones do. */
export class ModelLab {
  now = 1
  readonly machines: readonly Pc[]
  /** Called before each document that an operator stores, and each reset: may throw, as a kill would end it there. */
  before: (what: 'store' | 'reset') => void = () => undefined
  /** Called when time passes. */
  onTick: () => Promise<void> = async () => undefined

  constructor(names: readonly string[]) {
    this.machines = names.map((id) => ({
      id,
      up: true,
      process: 1,
      backAt: 0,
      receipt: 0,
      resets: 0,
      stored: undefined,
    }))
  }

  machine(id: string): Pc {
    return this.machines.find((one) => one.id === id)!
  }

  readonly pause = async (ms: number): Promise<void> => {
    this.now += ms
    for (const machine of this.machines) {
      if (machine.up || machine.backAt > this.now) continue
      machine.up = true
      machine.process++
      machine.receipt++
    }
    await this.onTick()
  }

  /** As one operator reaches it; `hears` are those it can reach. */
  fleet(hears: (id: string) => boolean = () => true): Fleet {
    const kept: { roll?: Roll } = {}
    const reached = (): Pc[] => this.machines.filter(({ id, up }) => up && hears(id))
    const all = new Bitmap(BLOCKS)
    all.setRange(0, BLOCKS)
    const rolls = async (): Promise<Roll[]> => [
      ...reached().flatMap(({ stored }) => (stored === undefined ? [] : [stored])),
      ...(kept.roll === undefined ? [] : [kept.roll]),
    ]
    return {
      rolls,
      look: async (): Promise<Seen> => ({
        blocks: BLOCKS,
        rolls: await rolls(),
        sights: this.machines.map(({ id, process, receipt }) => {
          const up = reached().some((one) => one.id === id)
          const seen = { key: String(receipt), release: 3, verified: true, reason: '' }
          const facts = { inUse: false, image: 'win', newest: 3, held: all, told: true, canWake: false }
          return { id, up, process: up ? String(process) : '', receipt: seen, ...facts }
        }),
      }),
      store: async (roll): Promise<Stored> => {
        this.before('store')
        const copy = parseRoll(JSON.parse(JSON.stringify(roll)))
        kept.roll = copy
        const instead: Roll[] = []
        for (const machine of reached()) {
          const { stored } = machine
          if (stored === undefined || isNewer(roll, stored)) machine.stored = copy
          else instead.push(stored)
        }
        return { up: reached().length, accepted: reached().length - instead.length, instead }
      },
      reset: async (roll, id) => {
        this.before('reset')
        const machine = reached().find((one) => one.id === id)
        if (machine === undefined) return undefined
        const { stored } = machine
        if (stored !== undefined && (stored.roll !== roll.roll || stored.epoch > roll.epoch))
          throw new MeshError('ROLL_SUPERSEDED', `${id} is at roll ${stored.roll}`)
        machine.up = false
        machine.resets++
        machine.backAt = this.now + BACK_MS
        return undefined
      },
      wake: async () => undefined,
    }
  }
}
