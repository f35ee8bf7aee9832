import { localTimeOf } from '../../../protocol/day-window.ts'
import { type UplinkRule, uplinkRate } from '../../../protocol/uplink-rule.ts'
import { UPLINK_BURST_MS } from './limits.ts'

/** What a user said of the uplink. */
export interface UplinkLimit {
  readonly rules: readonly UplinkRule[]
  /** True: nothing crosses outside of all windows. False: what cannot wait crosses at the lowest of the rates. */
  readonly strict: boolean
}

/** Where an {@link UplinkPace} has the time from. */
export interface Clock {
  /** Milliseconds of any clock. */
  readonly now: () => number
  /** The time of day of the machine. */
  readonly local: () => Date
}

/**
 * A token bucket that is filled at the rate that the uplink has at this time of day, or at a part of that rate. It saves up
 * what it grants in UPLINK_BURST_MS, and may be overdrawn by what is under way.
 */
export class UplinkPace {
  readonly #limit: UplinkLimit
  readonly #clock: Clock
  #parts = 1
  /** Bytes in the bucket at the time `#at`; negative: overdrawn. */
  #left = 0
  #at: number

  constructor(limit: UplinkLimit, clock: Clock) {
    this.#limit = limit
    this.#clock = clock
    this.#at = clock.now()
  }

  /** Bytes per second that the uplink carries now; 0: closed. */
  get bytesPerSecond(): number {
    const { rules, strict } = this.#limit
    const rate = uplinkRate(rules, localTimeOf(this.#clock.local()))
    return rate > 0 || strict ? rate : Math.min(...rules.map((rule) => rule.bytesPerSecond))
  }

  /** From now on the bucket is filled at the rate of the uplink ÷ `parts`: so many machines share the link. */
  share(parts: number): void {
    if (parts === this.#parts) return
    this.#refill()
    this.#parts = parts
  }

  /** Milliseconds until something may cross; infinity if the uplink is closed. */
  waitMs(): number {
    const perMs = this.#perMs
    const left = this.#leftNow()
    if (left >= 0) return perMs > 0 ? 0 : Number.POSITIVE_INFINITY
    return Math.ceil(-left / perMs)
  }

  /** Bytes that cross, or (negative) did not cross after all. */
  spend(bytes: number): void {
    this.#refill()
    this.#left -= bytes
  }

  get #perMs(): number {
    return this.bytesPerSecond / this.#parts / 1000
  }

  #leftNow(): number {
    const perMs = this.#perMs
    return Math.min(perMs * UPLINK_BURST_MS, this.#left + (this.#clock.now() - this.#at) * perMs)
  }

  #refill(): void {
    this.#left = this.#leftNow()
    this.#at = this.#clock.now()
  }
}
