import { MeshError } from '../../protocol/errors.ts'

interface Wanted {
  readonly length: number
  /** Whether the peer may end here instead. */
  readonly optional: boolean
  readonly resolve: (bytes: Buffer | undefined) => void
  readonly reject: (error: Error) => void
}

/**
 * Cuts the bytes of a socket into portions of the lengths that are asked for. Bytes behind the last portion are given
 * back by {@link rest}.
 */
export class ByteReader {
  #chunks: Buffer[] = []
  #bytes = 0
  #wanted: Wanted | undefined
  #ended = false

  /** Bytes that nobody has asked for yet. */
  get byteLength(): number {
    return this.#bytes
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.byteLength
    this.#answer()
  }

  /** Notes that no more bytes follow. */
  end(): void {
    this.#ended = true
    this.#answer()
  }

  /** Errors: NBD_PROTOCOL if the peer ends before. */
  async read(length: number): Promise<Buffer> {
    return (await this.#want(length, false))!
  }

  /** Undefined if the peer ends exactly here. Errors: NBD_PROTOCOL if it ends later, but before `length` bytes. */
  readUnlessEnded(length: number): Promise<Buffer | undefined> {
    return this.#want(length, true)
  }

  rest(): Buffer {
    return this.#take(this.#bytes)
  }

  #want(length: number, optional: boolean): Promise<Buffer | undefined> {
    return new Promise((resolve, reject) => {
      this.#wanted = { length, optional, resolve, reject }
      this.#answer()
    })
  }

  #take(length: number): Buffer {
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    this.#chunks = [all.subarray(length)]
    this.#bytes -= length
    return all.subarray(0, length)
  }

  #answer(): void {
    const wanted = this.#wanted
    if (wanted === undefined) return
    if (this.#bytes >= wanted.length) {
      this.#wanted = undefined
      wanted.resolve(this.#take(wanted.length))
    } else if (this.#ended) {
      this.#wanted = undefined
      if (wanted.optional && this.#bytes === 0) wanted.resolve(undefined)
      else wanted.reject(new MeshError('NBD_PROTOCOL', 'the NBD client left in the middle of the handshake'))
    }
  }
}
