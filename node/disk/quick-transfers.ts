import { QUICK_PAUSE_FACTOR, QUICK_SLOW_MS, QUICK_SLOW_MS_PER_MIB, QUICK_TRANSFER_BYTES } from './limits.ts'

/**
 * Decides which transfers the main thread makes itself. Handing a transfer to another thread costs five times what
 * copying a few KiB from or to the page cache costs. Once two transfers in a row had to wait for the disk, the main
 * thread makes none for a while, so that it is free for other things nearly all of the time. One slow transfer alone
 * may only have lost its core to another process.
 */
export class QuickTransfers {
  /** When the next transfer may be tried, in milliseconds of `performance.now()`. */
  #from = 0
  /** How long the last transfer had to wait; 0 if it did not. */
  #waited = 0

  /**
   * Returns whether all of `length` bytes were transferred. An error counts as no: the second attempt, by a thread,
   * will tell.
   */
  try(length: number, transfer: () => number): boolean {
    if (length > QUICK_TRANSFER_BYTES) return false
    const begun = performance.now()
    if (begun < this.#from) return false
    let done = 0
    try {
      done = transfer()
    } catch {
      return false
    }
    const ended = performance.now()
    const took = ended - begun
    const slow = took > QUICK_SLOW_MS + (length / 1024 ** 2) * QUICK_SLOW_MS_PER_MIB
    if (slow && this.#waited > 0) this.#from = ended + (this.#waited + took) * QUICK_PAUSE_FACTOR
    this.#waited = slow ? took : 0
    return done === length
  }
}
