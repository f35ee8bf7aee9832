import { type UplinkRule, uplinkRate } from '../../../protocol/uplink-rule.ts'
import { UPLINK_BURST_MS } from './limits.ts'

/** What a user said of the uplink. */
export interface UplinkLimit {
  readonly rules: readonly UplinkRule[]
  /** Outside of all windows nothing crosses. Else what cannot wait goes at the lowest of the rates. */
  readonly strict: boolean
}

export interface Clock {
  /** Milliseconds of any clock. */
  readonly now: () => number
  readonly local: () => Date
}

/** A token bucket that is filled at the rate that the uplink has at this time of day, or at a part of it. */
export class UplinkPace {
  readonly #limit: UplinkLimit
  readonly #clock: Clock
  #left = 0
  #at: number

  constructor(limit: UplinkLimit, clock: Clock) {
    this.#limit = limit
    this.#clock = clock
    this.#at = clock.now()
  }

  /** Bytes per second now; 0: closed. */
  get bytesPerSecond(): number {
    const { rules, strict } = this.#limit
    const time = this.#clock.local()
    const rate = uplinkRate(rules, { day: time.getDay(), minute: time.getHours() * 60 + time.getMinutes() })
    return rate > 0 || strict ? rate : Math.min(...rules.map((rule) => rule.bytesPerSecond))
  }

  /** Milliseconds until one of `parts` machines that share the link may let something cross; infinity if it is closed. */
  waitMs(parts: number): number {
    const perMs = this.bytesPerSecond / parts / 1000
    const now = this.#clock.now()
    this.#left = Math.min(perMs * UPLINK_BURST_MS, this.#left + (now - this.#at) * perMs)
    this.#at = now
    if (this.#left >= 0) return perMs > 0 ? 0 : Number.POSITIVE_INFINITY
    return Math.ceil(-this.#left / perMs)
  }

  /** Bytes that cross, or (negative) did not after all. */
  spend(bytes: number): void {
    this.#left -= bytes
  }
}
