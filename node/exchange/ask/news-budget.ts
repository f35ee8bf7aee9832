import type { Message } from '../../../protocol/messages.ts'
import {
  NEWS_BLOCKS_PER_UNIT,
  NEWS_BURST,
  NEWS_PER_SECOND,
  NEWS_RUNS_PER_UNIT,
  NEWS_UNITS_PER_RECORD,
} from './limits.ts'

/**
 * How much a server may tell a client that did not ask: a token bucket, in units of about 50 µs of work. What a server tells of a whole image
 * in pieces fits in many times over. Times are given, in milliseconds of any clock.
 */
export class NewsBudget {
  #left = NEWS_BURST
  #at: number

  constructor(now: number) {
    this.#at = now
  }

  /** Takes what a message costs. Returns false if that is more than there is. */
  take(message: Message, now: number): boolean {
    this.#left = Math.min(NEWS_BURST, this.#left + ((now - this.#at) * NEWS_PER_SECOND) / 1000)
    this.#at = now
    this.#left -= costOf(message)
    return this.#left >= 0
  }
}

function costOf(message: Message): number {
  if (message.type === 'have') {
    const { gained, lost } = message
    const runs = gained.runCount + lost.runCount
    return 1 + runs / NEWS_RUNS_PER_UNIT + (gained.count + lost.count) / NEWS_BLOCKS_PER_UNIT
  }
  if (message.type === 'peers')
    return message.peers.reduce((sum, { record }) => sum + (record === undefined ? 1 : NEWS_UNITS_PER_RECORD), 1)
  if (message.type === 'holds') return 1 + message.held.length
  return 1
}
