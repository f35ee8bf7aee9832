import type { Random } from '../lab/random.ts'

/** Thrown by every operation that is under way, or begins, when the power is off. */
export class PowerCut extends Error {}

/** Operations of an aimed activity within which the cut comes. */
const AIMED_OPERATIONS = 6

/** The power of one machine. It counts the operations of the disks and goes off at a chosen one. */
export class Power {
  readonly #random: Random
  /** Operations of the disks until the power goes off. */
  #left: number
  readonly #aim: string | undefined
  #activity = ''
  /** What was cut off, once the power is off. */
  cutDuring: string | undefined

  /**
   * `operations`: how many operations the disks do until the power goes off. It goes off sooner if the machine gets to
   * the activity `aim`.
   */
  constructor(random: Random, operations: number, aim?: string) {
    this.#random = random
    this.#left = operations
    this.#aim = aim
  }

  get off(): boolean {
    return this.cutDuring !== undefined
  }

  get activity(): string {
    return this.#activity
  }

  /** Whoever drives the machine sets what it does from now on. */
  set activity(activity: string) {
    this.#activity = activity
    if (activity === this.#aim) this.#left = Math.min(this.#left, this.#random.below(AIMED_OPERATIONS))
  }

  /** Counts an operation. Other things may happen during it, and the power may be off after it. */
  async tick(operation = 'something else'): Promise<void> {
    this.assertOn()
    for (let turns = this.#random.below(3); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve))
    this.assertOn()
    if (--this.#left < 0) this.cut(operation)
    this.assertOn()
  }

  cut(during: string): void {
    this.cutDuring ??= `${this.#activity}: ${during}`
  }

  assertOn(): void {
    if (this.off) throw new PowerCut('the power is off')
  }
}
