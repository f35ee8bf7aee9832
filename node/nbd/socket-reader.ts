import type { Socket } from 'node:net'
import { errnoOf, MeshError } from '../../protocol/errors.ts'

/**
 * Reads a socket in portions of the lengths that are asked for. The rest stays in the socket, which then slows the
 * sender.
 */
export class SocketReader {
  readonly #socket: Socket
  readonly #name: string
  #error: unknown
  #wake: (() => void) | undefined

  /** `name`: name of the peer, for messages. Nobody may have read from the socket. */
  constructor(socket: Socket, name: string) {
    this.#socket = socket
    this.#name = name
    const wake = (): void => this.#wake?.()
    socket.on('readable', wake)
    socket.on('end', wake)
    socket.on('close', wake)
    socket.on('error', (error) => {
      this.#error = error
    })
  }

  /** Reads exactly `length` bytes, one call at a time. Errors: NBD_UNREACHABLE if the connection ends before. */
  async read(length: number): Promise<Buffer> {
    if (length === 0) return Buffer.alloc(0)
    for (;;) {
      const bytes: Buffer | null = this.#socket.destroyed ? null : this.#socket.read(length)
      if (bytes?.byteLength === length) return bytes
      if (bytes !== null || this.#socket.readableEnded || this.#socket.destroyed) throw this.#lost()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  #lost(): MeshError {
    const why = this.#error === undefined ? '' : ` (${errnoOf(this.#error) ?? String(this.#error)})`
    return new MeshError('NBD_UNREACHABLE', `${this.#name} closed the connection${why}`, { cause: this.#error })
  }
}
