import { QUICK_PAUSE_FACTOR, QUICK_SLOW_MS, QUICK_SLOW_MS_PER_MIB, QUICK_TRANSFER_BYTES } from './limits.ts'

/**
 * Decides which transfers are made at once by the main thread: to hand one to another thread costs five times what copying
 * a few KiB from or to the page cache does. Once two in a row had to wait for the disk, none is tried for a while, so that
 * this thread goes on with other things nearly all of the time. One alone may only have lost its core to another process.
 */
export class QuickTransfers {
  /** When one may be tried again, in milliseconds of `performance.now()`. */
  #from = 0
  /** How long the last one had to wait, if it had. */
  #waited = 0

  /** Whether all of `length` bytes were transferred. Nothing is concluded from an error: a second attempt tells. */
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
