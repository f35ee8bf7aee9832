import type { Random } from '../lab/random.ts'

/** Thrown by everything that is under way, or tried, when the power is gone. */
export class PowerCut extends Error {}

/** Operations within which an activity that is aimed at is cut. */
const AIMED_OPERATIONS = 6

/** The power of one machine: counts what its disks do and goes off at a chosen moment. */
export class Power {
  readonly #random: Random
  /** Operations of the disks until it goes off. */
  #left: number
  readonly #aim: string | undefined
  #activity = ''
  /** What was cut off, once the power is off. */
  cutDuring: string | undefined

  /** `operations`: how many the disks make until it goes off; sooner if the machine gets to the activity `aim`. */
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

  /** Told by whoever drives the machine what it does from now on. */
  set activity(activity: string) {
    this.#activity = activity
    if (activity === this.#aim) this.#left = Math.min(this.#left, this.#random.below(AIMED_OPERATIONS))
  }

  /** `operation` takes a moment, in which other things may happen; then the power may be gone. */
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
