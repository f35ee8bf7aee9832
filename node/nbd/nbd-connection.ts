import type { Socket } from 'node:net'
import type { BufferPool } from './buffer-pool.ts'
import { ByteReader } from './byte-reader.ts'
import { negotiate } from './handshake.ts'
import { NBD_CLOSE_DEADLINE_MS, NBD_HANDSHAKE_DEADLINE_MS } from './limits.ts'
import type { NbdExport } from './nbd-export.ts'
import { type Farewell, Transmission } from './transmission.ts'

/** Bytes of the smallest buffer that is given back. Smaller buffers may share their memory with others. */
const MIN_RELEASED_BYTES = 32 * 1024

/** One client, from connecting until nothing that it asked for is under way. */
export class NbdConnection {
  readonly #socket: Socket
  readonly #exports: readonly NbdExport[] | Promise<readonly NbdExport[]>
  readonly #pool: BufferPool
  readonly #onFault: (error: unknown) => void
  readonly #reader = new ByteReader()
  #transmission: Transmission | undefined
  #farewell: Farewell | undefined
  /** Resolves when the socket is closed, or is being closed, and the export does nothing more for this client. */
  readonly ended: Promise<void>

  constructor(
    socket: Socket,
    options: {
      exports: readonly NbdExport[] | Promise<readonly NbdExport[]>
      pool: BufferPool
      onFault: (error: unknown) => void
    },
  ) {
    this.#socket = socket
    this.#exports = options.exports
    this.#pool = options.pool
    this.#onFault = options.onFault
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('end', () => this.#leave('serve'))
    socket.on('close', () => this.#leave('forget'))
    // 'close' follows.
    socket.on('error', () => undefined)
    this.ended = this.#serve()
  }

  /** Answers the requests under way, then disconnects. A client that does not take its answers is not waited for. */
  async close(): Promise<void> {
    const deadline = setTimeout(() => this.#socket.destroy(), NBD_CLOSE_DEADLINE_MS)
    if (this.#transmission === undefined) this.#socket.destroy()
    else this.#leave('refuse')
    await this.ended
    clearTimeout(deadline)
    this.#socket.destroy()
  }

  async #serve(): Promise<void> {
    const socket = this.#socket
    const deadline = setTimeout(() => socket.destroy(), NBD_HANDSHAKE_DEADLINE_MS)
    try {
      const send = (bytes: Buffer): void => void socket.write(bytes)
      const agreement = await negotiate(this.#reader, send, await this.#exports)
      clearTimeout(deadline)
      if (agreement !== undefined) {
        this.#transmission = new Transmission(socket, agreement, this.#pool, this.#onFault)
        this.#take(this.#reader.rest())
        if (this.#farewell !== undefined) this.#transmission.finish(this.#farewell)
        await this.#transmission.finished
      }
    } catch (error) {
      this.#onFault(error)
    } finally {
      clearTimeout(deadline)
      socket.destroySoon()
    }
  }

  #take(chunk: Buffer): void {
    try {
      if (this.#transmission === undefined) this.#reader.push(chunk)
      else if (this.#transmission.push(chunk)) release(chunk)
    } catch (error) {
      this.#onFault(error)
      this.#socket.destroy()
    }
  }

  #leave(farewell: Farewell): void {
    this.#farewell = farewell
    this.#reader.end()
    this.#transmission?.finish(farewell)
  }
}

/**
 * Gives the memory of a chunk back at once, for the next read. Left to the garbage collector, which then runs after
 * every few hundred chunks, it costs a quarter of the time that large writes take.
 */
function release({ buffer, byteLength }: Buffer): void {
  if (byteLength >= MIN_RELEASED_BYTES && buffer instanceof ArrayBuffer && byteLength === buffer.byteLength)
    buffer.transfer(0)
}
