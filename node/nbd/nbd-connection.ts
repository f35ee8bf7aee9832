import type { Socket } from 'node:net'
import { ByteReader } from './byte-reader.ts'
import { negotiate } from './handshake.ts'
import { NBD_CLOSE_DEADLINE_MS, NBD_HANDSHAKE_DEADLINE_MS, NBD_STALL_MS } from './limits.ts'
import type { NbdExport } from './nbd-export.ts'
import { type Farewell, type Shared, Transmission } from './transmission.ts'

/** Bytes of the smallest buffer that is given back. Smaller buffers may share their memory with others. */
const MIN_RELEASED_BYTES = 32 * 1024

/** One client, from connecting until nothing that it asked for is under way. */
export class NbdConnection {
  readonly #socket: Socket
  readonly #exports: readonly NbdExport[] | Promise<readonly NbdExport[]>
  readonly #shared: Shared
  readonly #onFault: (error: unknown) => void
  readonly #reader = new ByteReader()
  readonly #connectedAt = performance.now()
  #transmission: Transmission | undefined
  #farewell: Farewell | undefined
  /** Resolves when the socket is closed, or is being closed, and the export does nothing more for this client. */
  readonly ended: Promise<void>

  constructor(
    socket: Socket,
    options: {
      exports: readonly NbdExport[] | Promise<readonly NbdExport[]>
      shared: Shared
      onFault: (error: unknown) => void
    },
  ) {
    this.#socket = socket
    this.#exports = options.exports
    this.#shared = options.shared
    this.#onFault = options.onFault
    socket.on('end', () => this.#leave('serve'))
    socket.on('close', () => this.#leave('forget'))
    // 'close' follows.
    socket.on('error', () => undefined)
    this.ended = this.#serve()
  }

  /** Whether nothing is under way for this client, or only what it does not take. */
  get mayGiveWay(): boolean {
    return this.#transmission === undefined || this.#transmission.isIdle || this.isStalled
  }

  /** Whether the client has not taken its answers, or sent the rest of a write, for NBD_STALL_MS. */
  get isStalled(): boolean {
    const transmission = this.#transmission
    if (transmission === undefined || transmission.isIdle || !transmission.waitsForClient) return false
    return performance.now() - transmission.progressAt >= NBD_STALL_MS
  }

  /** Whether this client gives way sooner than the other: it has never asked for anything, or it has not asked for longer. */
  isIdlerThan(other: NbdConnection): boolean {
    if (this.#asked !== other.#asked) return other.#asked
    return this.#progressAt < other.#progressAt
  }

  /** Disconnects at once, for this reason. What is under way ends by itself. */
  drop(reason: string): void {
    this.#onFault(new Error(reason))
    this.#socket.destroy()
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

  get #asked(): boolean {
    return this.#transmission?.asked === true
  }

  get #progressAt(): number {
    return this.#transmission?.progressAt ?? this.#connectedAt
  }

  async #serve(): Promise<void> {
    const socket = this.#socket
    const deadline = setTimeout(() => socket.destroy(), NBD_HANDSHAKE_DEADLINE_MS)
    try {
      const send = (bytes: Buffer): void => void socket.write(bytes)
      const exports = await this.#exports
      // Before that nothing is read, so that no client fills the memory meanwhile.
      socket.on('data', (chunk: Buffer) => this.#take(chunk))
      const agreement = await negotiate(this.#reader, send, exports)
      clearTimeout(deadline)
      if (agreement !== undefined) {
        this.#transmission = new Transmission(socket, agreement, this.#shared, this.#onFault)
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
