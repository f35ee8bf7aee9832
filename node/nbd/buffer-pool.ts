import { NBD_POOL_BYTES } from './limits.ts'

/** Bytes of the smallest buffer that is kept: allocating a smaller one costs less than keeping it. */
const MIN_KEPT_BYTES = 2048

/**
 * Buffers for requests, kept for later requests of about the same length. A fresh large buffer costs a page fault for
 * each 4 KiB.
 */
export class BufferPool {
  readonly #free = new Map<number, Buffer[]>()
  #kept = 0

  /** Returns a buffer of at least `length` bytes with any content. */
  take(length: number): Buffer {
    if (length < MIN_KEPT_BYTES) return Buffer.allocUnsafe(length)
    const size = 2 ** Math.ceil(Math.log2(length))
    const kept = this.#free.get(size)?.pop()
    if (kept === undefined) return Buffer.allocUnsafeSlow(size)
    this.#kept -= size
    return kept
  }

  /** Gives back what {@link take} returned. Nobody uses it any more. */
  give(buffer: Buffer): void {
    const size = buffer.byteLength
    if (size < MIN_KEPT_BYTES) return
    if (this.#kept + size > NBD_POOL_BYTES) {
      freeNow(buffer)
      return
    }
    this.#kept += size
    const free = this.#free.get(size)
    if (free === undefined) this.#free.set(size, [buffer])
    else free.push(buffer)
  }
}

/** Frees memory at once. Several buffers of 32 MiB would wait for the garbage collector otherwise. */
function freeNow({ buffer }: Buffer): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
}
