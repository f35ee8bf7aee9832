import { PROVEN_BYTES_PER_SECOND, SLOW_BYTES_PER_SECOND, SLOW_MS } from './limits.ts'

/**
 * Whether a peer is worth waiting for. Dearer peers, such as the master, are spared by cheaper ones. A peer that is asked and delivers
 * next to nothing for SLOW_MS, whatever it says meanwhile, spares nobody any more, until it has delivered well for SLOW_MS. Times are given,
 * in milliseconds of any clock.
 */
export class Standing {
  #doubtful: boolean
  /** The time that is being looked at: since when, and what was delivered. */
  #span: { since: number; bytes: number } | undefined

  /** `doubtful`: the peer was found silent before. */
  constructor(doubtful: boolean) {
    this.#doubtful = doubtful
  }

  get isDoubtful(): boolean {
    return this.#doubtful
  }

  /** Verified or not: bytes of content came that were asked for. */
  delivered(bytes: number): void {
    if (this.#span !== undefined) this.#span.bytes += bytes
  }

  /**
   * Looks whether the peer has kept up. `asked`: whether it is asked for something now, or has put off what it was asked for. Returns
   * whether its standing has changed.
   */
  look(now: number, asked: boolean): boolean {
    if (!asked) {
      this.#span = undefined
      return false
    }
    this.#span ??= { since: now, bytes: 0 }
    const ms = now - this.#span.since
    if (ms < SLOW_MS) return false
    const rate = (this.#span.bytes * 1000) / ms
    this.#span = { since: now, bytes: 0 }
    const before = this.#doubtful
    this.#doubtful = rate < (before ? PROVEN_BYTES_PER_SECOND : SLOW_BYTES_PER_SECOND)
    return this.#doubtful !== before
  }
}
