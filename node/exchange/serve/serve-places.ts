import { BUSY_RETRY_MAX_MS, BUSY_RETRY_MIN_MS } from '../limits.ts'
import { SERVE_PLACE_IDLE_MS, SERVE_PLACE_MS } from './limits.ts'

/** A peer in the line that does not ask again for this long has gone elsewhere. */
const FORGET_MS = 3 * BUSY_RETRY_MAX_MS

/**
 * Which peers are served, when their number is limited. The others wait in a line. While there is a line, each place goes to the
 * next in it after SERVE_PLACE_MS.
 */
export class ServePlaces {
  #most: number
  readonly #served = new Map<string, { since: number; seen: number }>()
  /** When each last asked, in the order in which they first did. */
  readonly #line = new Map<string, number>()

  constructor(most = Number.POSITIVE_INFINITY) {
    this.#most = most
  }

  /** From now on so many peers are served at a time. */
  limit(most: number): void {
    this.#most = most
  }

  /** How many peers are in the line. */
  get waiting(): number {
    return this.#line.size
  }

  /**
   * A peer asks for something: it gets a free place, or keeps its own, or goes into the line. Returns 0 if it is served now, else
   * in how many milliseconds it should ask again.
   */
  ask(peer: string, now: number): number {
    this.#expire(now)
    const own = this.#served.get(peer)
    const mayStay =
      this.#served.size <= this.#most && (this.#line.size === 0 || now - (own?.since ?? 0) < SERVE_PLACE_MS)
    if (own !== undefined && mayStay) {
      own.seen = now
      return 0
    }
    this.#served.delete(peer)
    this.#line.set(peer, now)
    const position = [...this.#line.keys()].indexOf(peer)
    const free = this.#most - this.#served.size
    if (position < free) {
      this.#line.delete(peer)
      this.#served.set(peer, { since: now, seen: now })
      return 0
    }
    return this.#retryMs(position - Math.max(0, free), now)
  }

  /** The peer still takes what it asked for. */
  saw(peer: string, now: number): void {
    const own = this.#served.get(peer)
    if (own !== undefined) own.seen = now
  }

  /** The peer is gone: its place is free. */
  leave(peer: string): void {
    this.#served.delete(peer)
    this.#line.delete(peer)
  }

  /** Milliseconds until a place is due for a peer that so many others stand before in the line. */
  #retryMs(behind: number, now: number): number {
    const due = [...this.#served.values()].map(({ since }) => since + SERVE_PLACE_MS - now).toSorted((a, b) => a - b)
    const rounds = Math.floor(behind / Math.max(1, due.length))
    const ms = (due[behind % Math.max(1, due.length)] ?? 0) + rounds * SERVE_PLACE_MS
    return Math.min(BUSY_RETRY_MAX_MS, Math.max(BUSY_RETRY_MIN_MS, Math.ceil(ms)))
  }

  #expire(now: number): void {
    for (const [peer, { seen }] of this.#served) if (now - seen > SERVE_PLACE_IDLE_MS) this.#served.delete(peer)
    for (const [peer, asked] of this.#line) if (now - asked > FORGET_MS) this.#line.delete(peer)
  }
}
