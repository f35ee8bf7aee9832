import type { RollAction, Sight, View } from '../../node/roll/roll-step.ts'
import { Bitmap } from '../../protocol/bitmap.ts'
import type { Random } from '../lab/random.ts'

/** Chances: a part of the machines, or of the resets. */
const OFF = 0.05
const CAN_WAKE = 0.7
const IN_USE = 0.05
const NEVER_BACK = 0.01
const FAILS = 0.01
/** How often in an hour a running machine goes off by itself, and comes back. */
const DIES_PER_HOUR = 0.1
/** Parts of the image that sessions have dirtied: the same blocks on all machines, and other blocks on each. */
const DIRTY_ON_ALL = 0.01
const DIRTY_ON_EACH = 0.02
/** Seconds from the reset to the receipt. Most machines boot and restore quickly, some scan their disk. */
const BACK_MIN_S = 60
const BACK_MORE_S = 120
const SCANS = 0.1
const SCAN_S = 600
const AWAY_S = 900
const USED_S = 3600

interface SimulatedPc {
  readonly id: string
  readonly inGroup: boolean
  readonly canWake: boolean
  up: boolean
  process: number
  held: Bitmap
  receipt: Sight['receipt']
  /** Seconds until the machine is up again, and until nobody uses it any more. */
  backIn: number
  usedFor: number
}

/** A room of machines and the site's master. Machines take their time, fail, are used, and are off. */
export class SimulatedRoom {
  readonly image = 'win'
  readonly release = 7
  readonly names: readonly string[]
  readonly #machines: SimulatedPc[]
  readonly #random: Random
  readonly #blocks: number

  constructor(machines: number, blocks: number, random: Random) {
    this.#random = random
    this.#blocks = blocks
    this.names = Array.from({ length: machines }, (_, i) => `pc${i + 1}`)
    const everywhere = Array.from({ length: Math.round(blocks * DIRTY_ON_ALL) }, () => random.below(blocks))
    this.#machines = [...this.names, 'master'].map((id): SimulatedPc => {
      const inGroup = id !== 'master'
      const off = inGroup && random.next() < OFF
      const held = this.#full()
      if (inGroup) for (const block of everywhere) held.clear(block)
      if (inGroup) for (let i = blocks * DIRTY_ON_EACH; i > 0; i--) held.clear(random.below(blocks))
      return {
        id,
        inGroup,
        canWake: random.next() < CAN_WAKE,
        up: !off,
        process: 1,
        held,
        receipt: undefined,
        backIn: Number.POSITIVE_INFINITY,
        usedFor: inGroup && random.next() < IN_USE ? random.below(USED_S) : 0,
      }
    })
  }

  view(now: number): View {
    return {
      now,
      windowOpen: true,
      blocks: this.#blocks,
      sights: this.#machines.map(
        ({ id, up, process, usedFor, held, receipt, canWake }): Sight => ({
          id,
          up,
          process: up ? String(process) : '',
          inUse: usedFor > 0,
          image: this.image,
          newest: this.release,
          held,
          told: true,
          canWake,
          ...(receipt === undefined ? {} : { receipt }),
        }),
      ),
    }
  }

  tick(seconds: number): void {
    for (const machine of this.#machines) {
      machine.usedFor -= seconds
      machine.backIn -= seconds
      if (!machine.up && machine.backIn <= 0) {
        machine.up = true
        machine.process++
      } else if (machine.up && this.#random.next() < (DIES_PER_HOUR * seconds) / 3600) {
        this.#leave(machine, this.#random.below(AWAY_S))
      }
    }
  }

  act({ type, id }: RollAction): void {
    const machine = this.#machines.find((one) => one.id === id)!
    const random = this.#random
    const seconds = BACK_MIN_S + random.below(BACK_MORE_S) + (random.next() < SCANS ? random.below(SCAN_S) : 0)
    if (type === 'wake') {
      if (!machine.up) machine.backIn = Math.min(machine.backIn, seconds)
      return
    }
    if (!machine.up) return
    const luck = random.next()
    const verified = luck > NEVER_BACK + FAILS
    this.#leave(machine, luck < NEVER_BACK ? Number.POSITIVE_INFINITY : seconds)
    machine.receipt = {
      key: `${id}-${machine.process}`,
      release: this.release,
      verified,
      reason: verified ? '' : 'nobody has block 1',
    }
    if (verified) machine.held = this.#full()
  }

  #leave(machine: SimulatedPc, backIn: number): void {
    machine.up = false
    machine.backIn = backIn
  }

  #full(): Bitmap {
    const all = new Bitmap(this.#blocks)
    all.setRange(0, this.#blocks)
    return all
  }
}
