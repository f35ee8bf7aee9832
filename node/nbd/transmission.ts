import type { Socket } from 'node:net'
import { isMeshError } from '../../protocol/errors.ts'
import type { BufferPool } from './buffer-pool.ts'
import type { Agreement } from './handshake.ts'
import { IncomingWrite } from './incoming-write.ts'
import {
  NBD_MAX_BYTES_UNDER_WAY,
  NBD_MAX_EXTENTS,
  NBD_MAX_PIECES_UNDER_WAY,
  NBD_MAX_REQUESTS_UNDER_WAY,
  NBD_OWN_BYTES,
} from './limits.ts'
import { COMMAND, COMMAND_FLAG, NBD_ERROR, REQUEST_BYTES } from './nbd-protocol.ts'
import { errorChunk, mostStatusBytes, readHeaderBytes, simpleReply, statusChunk, writeReadHeader } from './nbd-reply.ts'
import { carriesData, checkRequest, isChange, type NbdRequest, parseRequest } from './nbd-request.ts'
import type { RoomWaiter, SharedRoom } from './shared-room.ts'

/** What becomes of requests that were received and not begun: they are served, refused (ESHUTDOWN), or forgotten. */
export type Farewell = 'serve' | 'refuse' | 'forget'

/** What the connections of one server share. */
export interface Shared {
  readonly pool: BufferPool
  readonly room: SharedRoom
}

/**
 * Serves one connection after the handshake: requests in, replies out, in any order. Requests under way are limited in
 * number and bytes, of this connection and of all together; replies that wait for a slow reader count. At the limit the
 * socket is not read.
 */
export class Transmission {
  readonly #socket: Socket
  readonly #agreement: Agreement
  readonly #pool: BufferPool
  readonly #room: SharedRoom
  readonly #onFault: (error: unknown) => void
  /** The beginning of a request header that comes in two chunks. */
  readonly #header = Buffer.alloc(REQUEST_BYTES)
  #headerBytes = 0
  #incoming: IncomingWrite | undefined
  /** A write that will be refused when its data has been skipped, and the bytes that are still to be skipped. */
  #refused: { request: NbdRequest; error: number; skipBytes: number } | undefined
  /** Requests that were received and not begun. */
  readonly #queue: NbdRequest[] = []
  /** Requests that were begun and whose answer has not left. */
  #requests = 0
  /** Bytes of their data, here or coming in. */
  #bytes = 0
  /** Bytes in memory for them: answers, and pieces of writes. */
  #held = 0
  /** The place in the line for shared room of the first request of the queue. */
  #waiter: RoomWaiter | undefined
  /** Answers that the client has not taken. */
  #untaken = 0
  /** Bytes of answers that the client has taken. */
  #taken = 0
  #progressAt = performance.now()
  #asked = false
  /** Pieces of writes that threads are writing. */
  #pieces = 0
  /** Whether a thread is writing a part of the chunk that came in last. */
  #kept = false
  /** Whether reading has ended. */
  #leaving = false
  readonly #finished = Promise.withResolvers<void>()

  /** `onFault`: told of errors of the export. */
  constructor(socket: Socket, agreement: Agreement, { pool, room }: Shared, onFault: (error: unknown) => void) {
    this.#socket = socket
    this.#agreement = agreement
    this.#pool = pool
    this.#room = room
    this.#onFault = onFault
  }

  /** Whether the client has asked for anything yet. */
  get asked(): boolean {
    return this.#asked
  }

  /** When the client last sent or took anything; the clock of performance.now(). */
  get progressAt(): number {
    return this.#progressAt
  }

  /** Whether nothing is under way. */
  get isIdle(): boolean {
    return this.#requests === 0 && this.#queue.length === 0
  }

  /** Whether all that is under way waits for the client: to take answers, or to send the rest of a write. */
  get waitsForClient(): boolean {
    const sending = this.#incoming !== undefined && this.#incoming.pending === 0 ? 1 : 0
    return this.#requests === this.#untaken + sending && (this.#queue.length === 0 || this.#untaken > 0)
  }

  /**
   * Takes bytes from the client. True if the chunk is not needed any more; else it must not be changed. Errors:
   * NBD_PROTOCOL; the caller then closes the connection.
   */
  push(chunk: Buffer): boolean {
    this.#kept = false
    this.#progressAt = performance.now()
    // Answers to what comes in together leave together.
    this.#socket.cork()
    try {
      for (let at = 0; at < chunk.byteLength && !this.#leaving; ) {
        if (this.#incoming !== undefined) at += this.#receive(this.#incoming, chunk, at)
        else if (this.#refused !== undefined) at += this.#skip(chunk.byteLength - at)
        else at += this.#readHeader(chunk, at)
      }
    } finally {
      this.#socket.uncork()
    }
    return !this.#kept
  }

  /** Resolves when reading has ended and nothing is under way. */
  get finished(): Promise<void> {
    return this.#finished.promise
  }

  /** Stops reading. May be called again with another farewell. */
  finish(farewell: Farewell): void {
    this.#leaving = true
    const incoming = this.#incoming
    this.#incoming = undefined
    if (incoming !== undefined && incoming.pending === 0) this.#done(incoming.request)
    if (farewell !== 'serve') {
      for (const request of this.#queue.splice(0)) {
        if (farewell === 'refuse') this.#refuse(request, NBD_ERROR.shutdown)
      }
      this.#leaveLine()
    }
    this.#checkFinished()
  }

  #readHeader(chunk: Buffer, at: number): number {
    if (this.#headerBytes === 0 && chunk.byteLength - at >= REQUEST_BYTES) {
      this.#begin(parseRequest(chunk, at))
      return REQUEST_BYTES
    }
    const taken = Math.min(REQUEST_BYTES - this.#headerBytes, chunk.byteLength - at)
    chunk.copy(this.#header, this.#headerBytes, at, at + taken)
    this.#headerBytes += taken
    if (this.#headerBytes === REQUEST_BYTES) {
      this.#headerBytes = 0
      this.#begin(parseRequest(this.#header, 0))
    }
    return taken
  }

  #begin(request: NbdRequest): void {
    const { command, length } = request
    this.#asked = true
    if (command === COMMAND.disconnect) {
      this.finish('serve')
      return
    }
    const error = checkRequest(request, this.#agreement)
    if (error !== 0) {
      if (command === COMMAND.write && length > 0) this.#refused = { request, error, skipBytes: length }
      else this.#refuse(request, error)
    } else if (command === COMMAND.write) {
      this.#beginWrite(request)
    } else if (this.#queue.length > 0 || !this.#hasRoom(request) || !this.#hasShared(request)) {
      this.#queue.push(request)
      this.#socket.pause()
    } else this.#run(request)
  }

  #skip(available: number): number {
    const refused = this.#refused!
    const taken = Math.min(available, refused.skipBytes)
    refused.skipBytes -= taken
    if (refused.skipBytes === 0) {
      this.#refused = undefined
      this.#refuse(refused.request, refused.error)
    }
    return taken
  }

  /** Answers that nothing was done. */
  #refuse(request: NbdRequest, error: number): void {
    // A refusal keeps no data in memory, however much the request asked for.
    const refused = { ...request, length: 0 }
    this.#requests++
    this.#sendError(refused, error)
    if (!this.#hasRoom(refused)) this.#socket.pause()
  }

  /** Begins a write at once: from here on its bytes count, and its mark is made while its data comes in. */
  #beginWrite(request: NbdRequest): void {
    if (!this.#hasRoom(request)) this.#socket.pause()
    this.#requests++
    this.#bytes += this.#costOf(request)
    const { export: served } = this.#agreement
    this.#incoming = new IncomingWrite(
      request,
      (offset, data) => this.#writePiece(offset, data),
      (incoming, bytes) => this.#pieceDone(incoming, bytes),
    )
    try {
      served.announceWrite(request.offset, request.length)
    } catch {
      // The write itself fails as well, and reports it.
    }
  }

  #writePiece(offset: number, data: Uint8Array): Promise<void> | undefined {
    const writing = this.#agreement.export.write(offset, data)
    if (writing === undefined) return undefined
    this.#kept = true
    this.#pieces++
    this.#hold(data.byteLength)
    if (!this.#mayWriteMore) this.#socket.pause()
    return writing
  }

  get #mayWriteMore(): boolean {
    return this.#pieces < NBD_MAX_PIECES_UNDER_WAY && (this.#held <= NBD_OWN_BYTES || !this.#room.isFull)
  }

  #pieceDone(incoming: IncomingWrite, bytes: number): void {
    this.#pieces--
    this.#hold(-bytes)
    if (incoming.pending === 0) {
      if (incoming.complete) this.#endWrite(incoming)
      // The client left in the middle of this write.
      else if (this.#incoming !== incoming) this.#done(incoming.request)
    }
    this.#proceed()
  }

  #receive(incoming: IncomingWrite, chunk: Buffer, at: number): number {
    const taken = incoming.take(chunk, at)
    if (incoming.complete) {
      this.#incoming = undefined
      if (incoming.pending === 0) this.#endWrite(incoming)
    }
    return taken
  }

  #endWrite({ request, failure }: IncomingWrite): void {
    if (failure !== undefined) this.#fail(request, failure.error)
    else this.#endChange(request)
  }

  /** Whether this connection may have one more request under way. */
  #hasRoom(request: NbdRequest): boolean {
    if (this.#requests === 0) return true
    return this.#requests < NBD_MAX_REQUESTS_UNDER_WAY && this.#bytes + this.#costOf(request) <= NBD_MAX_BYTES_UNDER_WAY
  }

  /** Whether there is room for the answer beside those of other connections. If not, this connection gets in line. */
  #hasShared(request: NbdRequest): boolean {
    const bytes = beyondOwn(this.#held + this.#costOf(request)) - beyondOwn(this.#held)
    if (bytes === 0) {
      this.#leaveLine()
      return true
    }
    if (this.#waiter !== undefined) this.#waiter.bytes = bytes
    else if (this.#room.hasFor(bytes)) return true
    else {
      this.#waiter = { bytes, taken: this.#taken, begin: () => this.#beginFirst() }
      this.#room.wait(this.#waiter)
    }
    return false
  }

  /** It is this connection's turn. */
  #beginFirst(): void {
    this.#waiter = undefined
    this.#run(this.#queue.shift()!)
    this.#proceed()
  }

  #leaveLine(): void {
    const waiter = this.#waiter
    this.#waiter = undefined
    if (waiter !== undefined) this.#room.leave(waiter)
  }

  /** Notes bytes that are in memory from now on, or no more. */
  #hold(change: number): void {
    const before = beyondOwn(this.#held)
    this.#held += change
    const shared = beyondOwn(this.#held) - before
    if (shared !== 0) this.#room.change(shared)
  }

  /** Notes that the answer has left, or that nobody waits for it any more. */
  #done(request: NbdRequest): void {
    this.#requests--
    this.#bytes -= this.#costOf(request)
    if (request.command !== COMMAND.write) this.#hold(-this.#costOf(request))
    this.#proceed()
    this.#checkFinished()
  }

  /** Begins requests that waited for room. */
  #proceed(): void {
    while (this.#queue.length > 0 && this.#hasRoom(this.#queue[0]!) && this.#hasShared(this.#queue[0]!))
      this.#run(this.#queue.shift()!)
    if (
      this.#queue.length === 0 &&
      this.#requests < NBD_MAX_REQUESTS_UNDER_WAY &&
      this.#mayWriteMore &&
      this.#socket.isPaused()
    )
      this.#socket.resume()
  }

  #checkFinished(): void {
    if (this.#leaving && this.#requests === 0 && this.#queue.length === 0) this.#finished.resolve()
  }

  #run(request: NbdRequest): void {
    this.#requests++
    this.#bytes += this.#costOf(request)
    this.#hold(this.#costOf(request))
    if (request.command === COMMAND.read) this.#read(request)
    else if (request.command === COMMAND.blockStatus) this.#blockStatus(request)
    else
      this.#perform(request).then(
        () => this.#endChange(request),
        (error: unknown) => this.#fail(request, error),
      )
  }

  async #perform({ command, offset, length }: NbdRequest): Promise<void> {
    const { export: served } = this.#agreement
    if (command === COMMAND.writeZeroes) await served.writeZeroes(offset, length)
    else if (command === COMMAND.trim) await served.trim(offset, length)
    else if (command === COMMAND.flush) await served.flush()
    // A cache request reads nothing ahead: the kernel does that by itself.
  }

  #endChange(request: NbdRequest): void {
    const answer = (): void => this.#send(simpleReply(request, 0), request)
    if ((request.flags & COMMAND_FLAG.fua) === 0 || !isChange(request.command)) answer()
    else this.#agreement.export.flush().then(answer, (error: unknown) => this.#fail(request, error))
  }

  #read(request: NbdRequest): void {
    const { structured, export: served } = this.#agreement
    const { offset, length } = request
    const head = readHeaderBytes(structured)
    const buffer = this.#pool.take(head + length)
    const answer = (): void => {
      writeReadHeader(buffer, request, structured)
      this.#send(buffer.subarray(0, head + length), request, buffer)
    }
    const fail = (error: unknown): void => {
      this.#pool.give(buffer)
      this.#fail(request, error)
    }
    try {
      const reading = served.read(offset, buffer.subarray(head, head + length))
      if (reading === undefined) answer()
      else reading.then(answer, fail)
    } catch (error) {
      fail(error)
    }
  }

  #blockStatus(request: NbdRequest): void {
    const { contexts } = this.#agreement
    const { offset, length, flags } = request
    const most = (flags & COMMAND_FLAG.reqOne) !== 0 ? 1 : NBD_MAX_EXTENTS
    try {
      const chunks = contexts.map((context, i) =>
        statusChunk(request, i + 1, context.extents(offset, length, most), i === contexts.length - 1),
      )
      this.#send(Buffer.concat(chunks), request)
    } catch (error) {
      this.#fail(request, error)
    }
  }

  #fail(request: NbdRequest, error: unknown): void {
    this.#onFault(error)
    this.#sendError(request, isMeshError(error, 'DISK_FULL') ? NBD_ERROR.noSpace : NBD_ERROR.io)
  }

  #sendError(request: NbdRequest, error: number): void {
    this.#send(this.#agreement.structured ? errorChunk(request, error) : simpleReply(request, error), request)
  }

  #send(bytes: Uint8Array, request: NbdRequest, pooled?: Buffer): void {
    this.#untaken++
    this.#socket.write(bytes, (error) => {
      this.#untaken--
      if (error == null) {
        this.#taken += bytes.byteLength
        this.#progressAt = performance.now()
      }
      if (pooled !== undefined) this.#pool.give(pooled)
      this.#done(request)
    })
  }

  /** Bytes of data that a request may keep in memory. */
  #costOf({ command, length, flags }: NbdRequest): number {
    if (command !== COMMAND.blockStatus) return carriesData(command) ? length : 0
    const most = (flags & COMMAND_FLAG.reqOne) !== 0 ? 1 : NBD_MAX_EXTENTS
    return length === 0 ? 0 : this.#agreement.contexts.length * mostStatusBytes(length, most)
  }
}

/** Bytes that count as shared, of those that a connection has in memory. */
function beyondOwn(bytes: number): number {
  return Math.max(0, bytes - NBD_OWN_BYTES)
}
