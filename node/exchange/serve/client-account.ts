import type { Message } from '../../../protocol/messages.ts'
import { SESSION_CREDIT_BYTES } from '../limits.ts'
import {
  ASK_BURST,
  ASK_IDS_PER_UNIT,
  ASK_PER_SECOND,
  ASK_RUNS_PER_UNIT,
  ASK_WASTED_PER_UNIT,
  FIND_DIGESTS_PER_UNIT,
  SERVE_METER_MS,
} from './limits.ts'

/**
 * What one client may make this machine do, over all its streams together: bytes it has asked for, and work that comes to nothing.
 * Such work is a token bucket, in units of about 50 µs. Times are given, in milliseconds of any clock.
 */
export class ClientAccount {
  /** Streams that the client has open. */
  streams = 0
  /** Bytes that were asked for and are not answered. */
  openBytes = 0
  #left = ASK_BURST
  #at: number
  /** Messages, as many as had not faded when the last one came. */
  #messages = 0
  #messageAt: number

  constructor(now: number) {
    this.#at = now
    this.#messageAt = now
  }

  /** Messages that came, per second lately. */
  messagesPerSecond(now: number): number {
    return (this.#faded(now) * 1000) / SERVE_METER_MS
  }

  /** Whether the client may have so much more open. */
  hasCredit(bytes: number): boolean {
    return this.openBytes + bytes <= SESSION_CREDIT_BYTES
  }

  /** Takes what a message costs, whatever becomes of it. Returns false if that is more than there is. */
  take(message: Message, now: number): boolean {
    this.#messages = this.#faded(now) + 1
    this.#messageAt = now
    return this.#spend(costOf(message), now) >= 0
  }

  /**
   * Takes what it costs to refuse so many requests, those among them that are `beyond` the credit, which an honest client never is. Returns
   * false if that is more than there is.
   */
  refuse(requests: number, beyond: number, now: number): boolean {
    return this.#spend((requests - beyond) / ASK_IDS_PER_UNIT + beyond / ASK_WASTED_PER_UNIT, now) >= 0
  }

  /** Takes what the requests cost that waited when their stream ended. What is owed is paid by the next stream. */
  abandon(requests: number, now: number): void {
    this.#spend(requests / ASK_WASTED_PER_UNIT, now)
  }

  /** Takes what a search of `digests` costs. Returns for how many milliseconds it has to wait. */
  search(digests: number, now: number): number {
    const left = this.#spend(digests / FIND_DIGESTS_PER_UNIT, now)
    return left >= 0 ? 0 : (-left * 1000) / ASK_PER_SECOND
  }

  #faded(now: number): number {
    return this.#messages * Math.exp((this.#messageAt - now) / SERVE_METER_MS)
  }

  #spend(units: number, now: number): number {
    this.#left = Math.min(ASK_BURST, this.#left + ((now - this.#at) * ASK_PER_SECOND) / 1000) - units
    this.#at = now
    return this.#left
  }
}

/** A `want` and a `find` are paid for by what becomes of them, too: a request that is taken on is bounded by the credit. */
function costOf(message: Message): number {
  if (message.type === 'cancel') return 1 + message.ids.length / ASK_WASTED_PER_UNIT
  if (message.type === 'fetching') return 1 + message.claimed.runCount / ASK_RUNS_PER_UNIT
  if (message.type === 'want') return message.requests.length === 0 ? 1 : 0
  return message.type === 'find' ? 0 : 1
}
