import { NBD_PREFERRED_BYTES } from './limits.ts'
import type { DoneSoon } from './nbd-export.ts'
import type { NbdRequest } from './nbd-request.ts'

/** Writes a piece of a request's data; the piece is the callee's. */
type WritePiece = (offset: number, data: Uint8Array) => DoneSoon

/**
 * A write whose data is being received. Whole pages are written, without copying, while the rest comes in. A part of a
 * page waits for its rest: to write it the kernel would have to read the page from the disk.
 */
export class IncomingWrite {
  readonly request: NbdRequest
  readonly #write: WritePiece
  readonly #onDone: (incoming: IncomingWrite, bytes: number) => void
  #received = 0
  /** The beginning of a page that comes in two chunks. */
  #page: Buffer | undefined
  #pageBytes = 0
  #pending = 0
  #failed = false
  #error: unknown

  /** `onDone` is called whenever a piece of so many bytes is written. Pieces that are written at once do not count. */
  constructor(request: NbdRequest, write: WritePiece, onDone: (incoming: IncomingWrite, bytes: number) => void) {
    this.request = request
    this.#write = write
    this.#onDone = onDone
  }

  /** Whether all data is here. */
  get complete(): boolean {
    return this.#received === this.request.length
  }

  /** Pieces being written. */
  get pending(): number {
    return this.#pending
  }

  /** Why a piece could not be written. */
  get failure(): { readonly error: unknown } | undefined {
    return this.#failed ? { error: this.#error } : undefined
  }

  /** Takes bytes of `chunk` from `at` on, and returns how many. Nobody else may use the chunk. */
  take(chunk: Buffer, at: number): number {
    const left = this.request.length - this.#received
    const available = Math.min(left, chunk.byteLength - at)
    const position = this.request.offset + this.#received
    if (this.#page !== undefined) return this.#fillPage(this.#page, chunk, at, available)
    const cut = available === left ? 0 : (position + available) % NBD_PREFERRED_BYTES
    if (cut >= available) {
      this.#page = Buffer.allocUnsafe(NBD_PREFERRED_BYTES)
      return this.#fillPage(this.#page, chunk, at, available)
    }
    const taken = available - cut
    this.#received += taken
    this.#pass(position, chunk.subarray(at, at + taken))
    return taken
  }

  #fillPage(page: Buffer, chunk: Buffer, at: number, available: number): number {
    const position = this.request.offset + this.#received
    const taken = Math.min(available, NBD_PREFERRED_BYTES - (position % NBD_PREFERRED_BYTES))
    chunk.copy(page, this.#pageBytes, at, at + taken)
    this.#pageBytes += taken
    this.#received += taken
    const end = position + taken
    if (end % NBD_PREFERRED_BYTES === 0 || this.complete) {
      const bytes = page.subarray(0, this.#pageBytes)
      this.#page = undefined
      this.#pageBytes = 0
      this.#pass(end - bytes.byteLength, bytes)
    }
    return taken
  }

  #pass(offset: number, bytes: Uint8Array): void {
    if (this.#failed) return
    try {
      const writing = this.#write(offset, bytes)
      if (writing === undefined) return
      this.#pending++
      writing.then(
        () => this.#passed(bytes.byteLength),
        (error: unknown) => this.#passed(bytes.byteLength, { error }),
      )
    } catch (error) {
      this.#fail(error)
    }
  }

  #passed(bytes: number, failure?: { error: unknown }): void {
    if (failure !== undefined) this.#fail(failure.error)
    this.#pending--
    this.#onDone(this, bytes)
  }

  #fail(error: unknown): void {
    if (!this.#failed) this.#error = error
    this.#failed = true
  }
}
