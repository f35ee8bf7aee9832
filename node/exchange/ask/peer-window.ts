import {
  FIRST_PEER_WINDOW_BYTES,
  MIN_PEER_WINDOW_BYTES,
  PEER_QUEUE_MS,
  WINDOW_GROWTH,
  WINDOW_ROUND_BYTES,
  WINDOW_ROUND_MS,
} from './limits.ts'

/** Weight of the newest measurement in the smoothed rate. */
const RATE_WEIGHT = 0.3
/** How fast the remembered shortest delay is forgotten, per round: the path may have changed. */
const DELAY_DRIFT = 1.05

/**
 * How much to have asked of one peer: what the peer delivers in the time that an answer takes when nothing waits before it, and
 * in PEER_QUEUE_MS more. So its link never idles, and little waits there that another peer might bring sooner. The window is
 * doubled as long as that brings more (as BBR does in its start-up, Cardwell et al. 2016), and follows rate and delay from then
 * on. The window is pure: times are given, in milliseconds.
 */
export class PeerWindow {
  #size = FIRST_PEER_WINDOW_BYTES
  #rate = 0
  #delayMs = Number.POSITIVE_INFINITY
  #growing = true
  /** The round that is being measured: bytes delivered since, and whether the window was used up all the time. */
  #round: { since: number; bytes: number; full: boolean } | undefined

  /** Bytes that may be asked for and not yet delivered. */
  get size(): number {
    return this.#size
  }

  /** Bytes per second, smoothed; 0 until measured. */
  get rate(): number {
    return this.#rate
  }

  /** Begins with the smallest window: the link to the peer is taken to be slow. */
  beginSmall(): void {
    this.#size = MIN_PEER_WINDOW_BYTES
  }

  /** A request is on its way, and no other was. */
  begun(now: number): void {
    this.#round = { since: now, bytes: 0, full: false }
  }

  /** An answer came; `open`: bytes that are still asked for, `ageMs`: time since it was asked for. */
  delivered(bytes: number, open: number, ageMs: number, now: number): void {
    this.#delayMs = Math.min(this.#delayMs, Math.max(1, ageMs))
    this.#round ??= { since: now, bytes: 0, full: false }
    const round = this.#round
    round.bytes += bytes
    if (open + bytes >= this.#size / 2) round.full = true
    const took = now - round.since
    const enough = Math.max(WINDOW_ROUND_MS, Math.min(this.#delayMs, 5 * WINDOW_ROUND_MS))
    if (took < enough && (took <= 0 || round.bytes < WINDOW_ROUND_BYTES)) return
    this.#measured((round.bytes * 1000) / took, round.full)
    this.#round = { since: now, bytes: 0, full: false }
  }

  #measured(rate: number, full: boolean): void {
    // A peer that was asked for little delivered little: that says nothing of its link.
    if (!full && rate < this.#rate) return
    const before = this.#rate
    this.#rate = before === 0 || rate > before ? rate : before + RATE_WEIGHT * (rate - before)
    this.#growing &&= rate > before * WINDOW_GROWTH
    this.#delayMs *= DELAY_DRIFT
    const fitting = (this.#rate * (Math.min(this.#delayMs, PEER_QUEUE_MS) + PEER_QUEUE_MS)) / 1000
    this.#size = Math.max(MIN_PEER_WINDOW_BYTES, fitting, this.#growing && full ? this.#size * 2 : 0)
  }
}
