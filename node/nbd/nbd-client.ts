import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { agree, type NbdFacts } from './client-handshake.ts'
import { ClientReplies, type PendingRequest } from './client-replies.ts'
import {
  NBD_CLIENT_REQUEST_BYTES,
  NBD_CONNECT_DEADLINE_MS,
  NBD_GOODBYE_DEADLINE_MS,
  NBD_MAX_REQUESTS_UNDER_WAY,
  NBD_REPLY_DEADLINE_MS,
  NBD_STATUS_BYTES,
} from './limits.ts'
import type { Extent } from './nbd-export.ts'
import { COMMAND, COMMAND_FLAG, REQUEST_BYTES, REQUEST_MAGIC } from './nbd-protocol.ts'
import { type NbdTarget, parseNbdUri } from './nbd-uri.ts'
import { SocketReader } from './socket-reader.ts'

/** What a client asks for and how long it waits, in milliseconds. */
export interface NbdClientOptions {
  /** Contexts of block status that will be asked for. */
  readonly contexts?: readonly string[]
  /** @default NBD_CONNECT_DEADLINE_MS */
  readonly connectMs?: number
  /** @default NBD_REPLY_DEADLINE_MS */
  readonly replyMs?: number
}

/**
 * One connection to an export of an NBD server (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
 * Several requests may be under way. When the connection is lost, or the server answers wrongly or not at all,
 * everything fails from then on: NBD_UNREACHABLE, NBD_PROTOCOL, REQUEST_TIMEOUT. An error that the server reports is of
 * one request: DISK_IO, DISK_FULL.
 */
export class NbdClient {
  readonly facts: NbdFacts
  readonly #target: NbdTarget
  readonly #socket: Socket
  readonly #replyMs: number
  readonly #pending = new Map<bigint, PendingRequest>()
  /** Callers that wait for a request under way to end. */
  readonly #waiting: (() => void)[] = []
  #lastCookie = 0n
  /** The reason why nothing works any more. */
  #failure: unknown
  #closed = false

  private constructor(target: NbdTarget, socket: Socket, reader: SocketReader, facts: NbdFacts, replyMs: number) {
    this.#target = target
    this.#socket = socket
    this.facts = facts
    this.#replyMs = replyMs
    new ClientReplies(reader, facts, target.uri, this.#pending).run().catch((error: unknown) => this.#fail(error))
  }

  /**
   * Connects to an export. Errors: NBD_ADDRESS_INVALID (also: no such export), NBD_UNREACHABLE, NBD_PROTOCOL,
   * NBD_UNSUITABLE, REQUEST_TIMEOUT.
   */
  static async connect(uri: string, options: NbdClientOptions = {}): Promise<NbdClient> {
    const { contexts = [], connectMs = NBD_CONNECT_DEADLINE_MS, replyMs = NBD_REPLY_DEADLINE_MS } = options
    const target = parseNbdUri(uri)
    const socket = connect({ ...target.socket, noDelay: true })
    const late = new MeshError('REQUEST_TIMEOUT', `${uri} did not answer within ${connectMs / 1000} s`)
    const deadline = setTimeout(() => socket.destroy(late), connectMs)
    try {
      await once(socket, 'connect').catch((error: unknown) => {
        throw error === late ? late : unreachable(uri, error)
      })
      const reader = new SocketReader(socket, uri)
      const facts = await agree(reader, (bytes) => socket.write(bytes), target, contexts)
      return new NbdClient(target, socket, reader, facts, replyMs)
    } catch (error) {
      socket.destroy()
      throw socket.errored === late ? late : error
    } finally {
      clearTimeout(deadline)
    }
  }

  get uri(): string {
    return this.#target.uri
  }

  /** Bytes. */
  get size(): number {
    return this.facts.size
  }

  /** Fills `into` from `offset`. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#assertInside(offset, into.byteLength)
    await this.#inParts(into, async (at, part) => {
      await this.#request({ command: COMMAND.read, offset: offset + at, length: part.byteLength, into: part })
    })
  }

  /**
   * Writes `data`, which must not change until it resolves. The data is durable after {@link flush}, or at once with
   * `fua`.
   */
  async write(offset: number, data: Uint8Array, options: { fua?: boolean } = {}): Promise<void> {
    this.#assertInside(offset, data.byteLength)
    const { fua = false } = options
    const flags = fua && this.facts.canFua ? COMMAND_FLAG.fua : 0
    await this.#inParts(data, async (at, part) => {
      await this.#request({ command: COMMAND.write, flags, offset: offset + at, length: part.byteLength, data: part })
    })
    if (fua && !this.facts.canFua) await this.flush()
  }

  /** Resolves when all writes that were answered before are durable. Errors: also NBD_UNSUITABLE if it is not offered. */
  async flush(): Promise<void> {
    if (!this.facts.canFlush) throw new MeshError('NBD_UNSUITABLE', `${this.uri} offers no flush`)
    await this.#request({ command: COMMAND.flush, offset: 0, length: 0 })
  }

  /**
   * Status of [offset, offset + length) in one of the contexts named on connecting, in order and without gaps. Errors:
   * also NBD_UNSUITABLE if the server does not know the context.
   */
  async *blockStatus(context: string, offset: number, length: number): AsyncGenerator<Extent & { offset: number }> {
    this.#assertInside(offset, length)
    const contextId = this.facts.contexts.get(context)
    if (contextId === undefined) throw new MeshError('NBD_UNSUITABLE', `${this.uri} does not offer ${context}`)
    for (let at = offset; at < offset + length; ) {
      const asked = Math.min(NBD_STATUS_BYTES, offset + length - at)
      const extents = await this.#request({ command: COMMAND.blockStatus, offset: at, length: asked, contextId })
      for (const { length: told, flags } of extents) {
        const inside = Math.min(told, offset + length - at)
        yield { offset: at, length: inside, flags }
        at += inside
      }
    }
  }

  /** Says goodbye. Requests under way fail. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    if (!this.#socket.destroyed) {
      const gone = once(this.#socket, 'close')
      this.#socket.write(encodeRequest(COMMAND.disconnect, 0, 0n, 0, 0))
      this.#socket.destroySoon()
      const late = setTimeout(() => this.#socket.destroy(), NBD_GOODBYE_DEADLINE_MS)
      await gone.catch(() => undefined)
      clearTimeout(late)
    }
    this.#fail(new MeshError('NBD_UNREACHABLE', `the connection to ${this.uri} was closed`))
  }

  async #inParts<Bytes extends Uint8Array>(
    bytes: Bytes,
    send: (at: number, part: Uint8Array) => Promise<void>,
  ): Promise<void> {
    if (bytes.byteLength <= NBD_CLIENT_REQUEST_BYTES) return send(0, bytes)
    const parts: Promise<void>[] = []
    for (let at = 0; at < bytes.byteLength; at += NBD_CLIENT_REQUEST_BYTES)
      parts.push(send(at, bytes.subarray(at, at + NBD_CLIENT_REQUEST_BYTES)))
    // A failure is thrown when every part has ended: until then the memory is in use.
    const failed = (await Promise.allSettled(parts)).find((part) => part.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  async #request(request: RequestToSend): Promise<readonly Extent[]> {
    const { command, flags = 0, offset, length, data, into, contextId } = request
    if (command !== COMMAND.flush && length === 0) return []
    assert(!this.#closed, 'the NBD client is closed')
    while (this.#pending.size >= NBD_MAX_REQUESTS_UNDER_WAY && this.#failure === undefined)
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    if (this.#failure !== undefined) throw this.#failure
    const cookie = ++this.#lastCookie
    const late = setTimeout(
      () => this.#fail(new MeshError('REQUEST_TIMEOUT', `${this.uri} did not answer for ${this.#replyMs / 1000} s`)),
      this.#replyMs,
    )
    try {
      return await new Promise((resolve, reject) => {
        this.#pending.set(cookie, { command, offset, length, into, contextId, resolve, reject })
        this.#socket.cork()
        this.#socket.write(encodeRequest(command, flags, cookie, offset, length))
        if (data !== undefined) this.#socket.write(data)
        this.#socket.uncork()
      })
    } finally {
      clearTimeout(late)
      this.#waiting.shift()?.()
    }
  }

  /** The first failure is the cause of all others. */
  #fail(error: unknown): void {
    this.#failure ??= error
    this.#socket.destroy()
    for (const { reject } of this.#pending.values()) reject(this.#failure)
    this.#pending.clear()
    for (const wake of this.#waiting.splice(0)) wake()
  }

  #assertInside(offset: number, length: number): void {
    assert(
      Number.isSafeInteger(offset) && offset >= 0 && offset + length <= this.size,
      `bytes ${offset} to ${offset + length} of ${this.uri}, which has ${this.size}`,
    )
  }
}

interface RequestToSend {
  readonly command: number
  readonly flags?: number
  readonly offset: number
  readonly length: number
  /** Of a write. */
  readonly data?: Uint8Array
  /** Of a read. */
  readonly into?: Uint8Array
  /** Of a block status. */
  readonly contextId?: number
}

function encodeRequest(command: number, flags: number, cookie: bigint, offset: number, length: number): Buffer {
  const request = Buffer.allocUnsafe(REQUEST_BYTES)
  request.writeUInt32BE(REQUEST_MAGIC, 0)
  request.writeUInt16BE(flags, 4)
  request.writeUInt16BE(command, 6)
  request.writeBigUInt64BE(cookie, 8)
  request.writeBigUInt64BE(BigInt(offset), 16)
  request.writeUInt32BE(length, 24)
  return request
}

function unreachable(uri: string, cause: unknown): MeshError {
  const why = errnoOf(cause) ?? (cause instanceof Error ? cause.message : String(cause))
  return new MeshError('NBD_UNREACHABLE', `${uri} cannot be reached (${why})`, { cause })
}
