import { MeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { NbdFacts } from './client-handshake.ts'
import { NBD_MAX_EXTENTS_TAKEN, NBD_MAX_OPTION_BYTES } from './limits.ts'
import type { Extent } from './nbd-export.ts'
import {
  CHUNK,
  CHUNK_ERROR_BIT,
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  COMMAND,
  NBD_ERROR,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './nbd-protocol.ts'
import type { SocketReader } from './socket-reader.ts'

/** A request that was sent. */
export interface PendingRequest {
  readonly command: number
  readonly offset: number
  readonly length: number
  /** The memory that the data of a read go to. */
  readonly into: Uint8Array | undefined
  readonly contextId: number | undefined
  resolve(extents: readonly Extent[]): void
  reject(error: unknown): void
}

/** The part of an answer that has come so far. */
interface Answer {
  /** Bytes of a read that have come, counted from its offset. */
  filled: RangeSet
  extents: Extent[] | undefined
  error: MeshError | undefined
}

interface Chunk {
  readonly flags: number
  readonly type: number
  readonly cookie: bigint
  readonly length: number
}

/** What the server's error numbers are called. */
const ERROR_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries({
    EPERM: NBD_ERROR.perm,
    EIO: NBD_ERROR.io,
    ENOMEM: NBD_ERROR.noMemory,
    EINVAL: NBD_ERROR.invalid,
    ENOSPC: NBD_ERROR.noSpace,
    EOVERFLOW: NBD_ERROR.overflow,
    ENOTSUP: NBD_ERROR.notSupported,
    ESHUTDOWN: NBD_ERROR.shutdown,
  }).map(([name, number]) => [number, name]),
)
const VERBS: Readonly<Record<number, string>> = {
  [COMMAND.read]: 'reading',
  [COMMAND.write]: 'writing',
  [COMMAND.flush]: 'flushing',
  [COMMAND.blockStatus]: 'asking for the block status of',
}

/**
 * Reads the answers of a server and settles the requests that they belong to. An answer that nobody asked for is a
 * fault of the server.
 */
export class ClientReplies {
  readonly #reader: SocketReader
  readonly #facts: NbdFacts
  readonly #uri: string
  readonly #pending: Map<bigint, PendingRequest>
  /** Requests whose answers come in several chunks. */
  readonly #answers = new Map<bigint, Answer>()

  constructor(reader: SocketReader, facts: NbdFacts, uri: string, pending: Map<bigint, PendingRequest>) {
    this.#reader = reader
    this.#facts = facts
    this.#uri = uri
    this.#pending = pending
  }

  /** Reads until an error ends it: NBD_PROTOCOL or NBD_UNREACHABLE. */
  async run(): Promise<never> {
    for (;;) {
      const magic = (await this.#reader.read(4)).readUInt32BE(0)
      if (magic === SIMPLE_REPLY_MAGIC) await this.#simple(await this.#reader.read(SIMPLE_REPLY_BYTES - 4))
      else if (magic === STRUCTURED_REPLY_MAGIC && this.#facts.structured)
        await this.#chunk(await this.#reader.read(CHUNK_HEADER_BYTES - 4))
      else throw this.#fault('begins an answer wrongly')
    }
  }

  async #simple(head: Buffer): Promise<void> {
    const cookie = head.readBigUInt64BE(4)
    const request = this.#requestOf(cookie)
    const code = head.readUInt32BE(0)
    if (this.#facts.structured && (request.command === COMMAND.read || request.command === COMMAND.blockStatus))
      throw this.#fault('answers simply what needs a structured answer')
    if (code === 0) await this.#fill(request, 0, request.into?.byteLength ?? 0)
    this.#pending.delete(cookie)
    if (code === 0) request.resolve([])
    else request.reject(this.#error(request, code, ''))
  }

  async #chunk(head: Buffer): Promise<void> {
    const chunk: Chunk = {
      flags: head.readUInt16BE(0),
      type: head.readUInt16BE(2),
      cookie: head.readBigUInt64BE(4),
      length: head.readUInt32BE(12),
    }
    const request = this.#requestOf(chunk.cookie)
    const answer = this.#answers.get(chunk.cookie) ?? { filled: RangeSet.empty, extents: undefined, error: undefined }
    await this.#take(request, answer, chunk)
    if ((chunk.flags & CHUNK_FLAG_DONE) === 0) {
      this.#answers.set(chunk.cookie, answer)
      return
    }
    this.#answers.delete(chunk.cookie)
    if (answer.error === undefined) this.#assertWhole(request, answer)
    this.#pending.delete(chunk.cookie)
    if (answer.error === undefined) request.resolve(answer.extents ?? [])
    else request.reject(answer.error)
  }

  async #take(request: PendingRequest, answer: Answer, chunk: Chunk): Promise<void> {
    const { type, length } = chunk
    if ((type & CHUNK_ERROR_BIT) !== 0) {
      answer.error ??= await this.#readError(request, length)
    } else if (type === CHUNK.none && length === 0 && (chunk.flags & CHUNK_FLAG_DONE) !== 0) {
      // This chunk only ends the answer.
    } else if (type === CHUNK.offsetData && length > 8) {
      const start = await this.#claim(request, answer, length - 8)
      await this.#fill(request, start, length - 8)
    } else if (type === CHUNK.offsetHole && length === 12) {
      const place = await this.#reader.read(12)
      const start = this.#place(request, answer, place.readBigUInt64BE(0), place.readUInt32BE(8))
      request.into?.fill(0, start, start + place.readUInt32BE(8))
    } else if (type === CHUNK.blockStatus && request.command === COMMAND.blockStatus) {
      if (answer.extents !== undefined) throw this.#fault('tells one block status twice')
      answer.extents = await this.#readExtents(request, length)
    } else throw this.#fault(`answers by a chunk of type ${type} and ${length} bytes`)
  }

  async #claim(request: PendingRequest, answer: Answer, length: number): Promise<number> {
    return this.#place(request, answer, (await this.#reader.read(8)).readBigUInt64BE(0), length)
  }

  /**
   * Returns the memory that a chunk belongs to. A chunk must lie inside its read, and must not overlap another chunk.
   */
  #place(request: PendingRequest, answer: Answer, offset: bigint, length: number): number {
    const start = Number(offset) - request.offset
    if (request.command !== COMMAND.read || length === 0 || start < 0 || start + length > request.length)
      throw this.#fault('sends data that were not asked for')
    const part = RangeSet.of(start, start + length)
    if (!answer.filled.intersect(part).isEmpty) throw this.#fault('sends the same data twice')
    answer.filled = answer.filled.union(part)
    return start
  }

  async #fill(request: PendingRequest, start: number, length: number): Promise<void> {
    if (length > 0) request.into?.set(await this.#reader.read(length), start)
  }

  async #readExtents(request: PendingRequest, length: number): Promise<Extent[]> {
    const count = (length - 4) / 8
    if (!Number.isInteger(count) || count < 1 || count > NBD_MAX_EXTENTS_TAKEN)
      throw this.#fault(`tells a block status of ${length} bytes`)
    const data = await this.#reader.read(length)
    if (data.readUInt32BE(0) !== request.contextId) throw this.#fault('tells of a context that was not asked for')
    const extents: Extent[] = []
    let covered = 0
    for (let i = 0; i < count; i++) {
      const extent = { length: data.readUInt32BE(4 + i * 8), flags: data.readUInt32BE(8 + i * 8) }
      // Only the last extent may reach beyond what was asked for.
      if (extent.length === 0 || covered >= request.length) throw this.#fault('tells a block status out of range')
      covered += extent.length
      extents.push(extent)
    }
    return extents
  }

  async #readError(request: PendingRequest, length: number): Promise<MeshError> {
    if (length < 6 || length > NBD_MAX_OPTION_BYTES) throw this.#fault(`reports an error in ${length} bytes`)
    const data = await this.#reader.read(length)
    const code = data.readUInt32BE(0)
    const textLength = data.readUInt16BE(4)
    if (code === 0 || textLength > length - 6) throw this.#fault('reports an error wrongly')
    return this.#error(request, code, data.subarray(6, 6 + textLength).toString())
  }

  #assertWhole(request: PendingRequest, answer: Answer): void {
    if (request.command === COMMAND.read && answer.filled.count !== request.length)
      throw this.#fault('ends a read before all data are there')
    if (request.command === COMMAND.blockStatus && answer.extents === undefined)
      throw this.#fault('tells no block status')
  }

  #requestOf(cookie: bigint): PendingRequest {
    const request = this.#pending.get(cookie)
    if (request === undefined) throw this.#fault('answers a request that was not sent, or is answered already')
    return request
  }

  #error({ command, offset }: PendingRequest, code: number, said: string): MeshError {
    const name = ERROR_NAMES.get(code) ?? `error ${code}`
    const where = command === COMMAND.flush ? '' : ` at byte ${offset}`
    const why = said === '' ? name : `${name}, ${said}`
    return new MeshError(
      code === NBD_ERROR.noSpace ? 'DISK_FULL' : 'DISK_IO',
      `${VERBS[command]} ${this.#uri} failed${where}: ${why}`,
      { detail: { uri: this.#uri, offset } },
    )
  }

  #fault(what: string): MeshError {
    return new MeshError('NBD_PROTOCOL', `${this.#uri} ${what}`)
  }
}
