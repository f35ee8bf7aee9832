import { MeshError } from '../../protocol/errors.ts'
import { NBD_MAX_OPTION_BYTES, NBD_MAX_OPTIONS } from './limits.ts'
import {
  FLAG_FIXED_NEWSTYLE,
  FLAG_NO_ZEROES,
  INFO,
  MAX_STRING_BYTES,
  NBD_MAGIC,
  OPTION,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REPLY,
  TRANSMIT,
} from './nbd-protocol.ts'
import type { NbdTarget } from './nbd-uri.ts'
import type { SocketReader } from './socket-reader.ts'

/** What a server offers. */
export interface NbdFacts {
  /** Bytes. */
  readonly size: number
  readonly readOnly: boolean
  readonly canFlush: boolean
  readonly canFua: boolean
  /** Reads are answered by structured replies. */
  readonly structured: boolean
  /** Requests must be multiples of this, in bytes. */
  readonly alignment: number
  /** Ids of the contexts that were asked for and are there. */
  readonly contexts: ReadonlyMap<string, number>
}

/** Bytes that requests should be multiples of if the server says nothing (proto.md, "Block size constraints"). */
const DEFAULT_ALIGNMENT_BYTES = 512
const MAX_ALIGNMENT_BYTES = 64 * 1024

interface Reply {
  readonly type: number
  readonly data: Buffer
}

/**
 * The client's side of the fixed newstyle handshake: asks for structured replies, for block status of `contexts`, and for
 * the export. Errors: NBD_PROTOCOL, NBD_UNREACHABLE, NBD_ADDRESS_INVALID (no such export), NBD_UNSUITABLE.
 */
export async function agree(
  reader: SocketReader,
  send: (bytes: Buffer) => void,
  target: NbdTarget,
  contexts: readonly string[],
): Promise<NbdFacts> {
  return new ClientHandshake(reader, send, target).run(contexts)
}

class ClientHandshake {
  readonly #reader: SocketReader
  readonly #send: (bytes: Buffer) => void
  readonly #target: NbdTarget

  constructor(reader: SocketReader, send: (bytes: Buffer) => void, target: NbdTarget) {
    this.#reader = reader
    this.#send = send
    this.#target = target
  }

  async run(contexts: readonly string[]): Promise<NbdFacts> {
    await this.#greet()
    const structured = (await this.#ask(OPTION.structuredReply, Buffer.alloc(0))).at(-1)!.type === REPLY.ack
    const ids = structured && contexts.length > 0 ? await this.#setContexts(contexts) : new Map<string, number>()
    const request = Buffer.concat([withLength(this.#target.exportName), Buffer.from([0, 1, 0, INFO.blockSize])])
    return { ...this.#facts(await this.#ask(OPTION.go, request)), structured, contexts: ids }
  }

  async #greet(): Promise<void> {
    const head = await this.#reader.read(18)
    if (head.readBigUInt64BE(0) !== NBD_MAGIC || head.readBigUInt64BE(8) !== OPTION_MAGIC)
      throw this.#fault('does not greet as an NBD server of the newstyle protocol')
    const flags = head.readUInt16BE(16)
    if ((flags & FLAG_FIXED_NEWSTYLE) === 0) throw this.#fault('does not speak the fixed newstyle protocol')
    const answer = Buffer.alloc(4)
    answer.writeUInt32BE(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES))
    this.#send(answer)
  }

  /**
   * Sends an option. Returns its replies up to the last one, which is an acknowledgement or a refusal that leaves the
   * other options possible.
   */
  async #ask(option: number, data: Buffer): Promise<Reply[]> {
    const head = Buffer.alloc(16)
    head.writeBigUInt64BE(OPTION_MAGIC, 0)
    head.writeUInt32BE(option, 8)
    head.writeUInt32BE(data.byteLength, 12)
    this.#send(Buffer.concat([head, data]))
    const replies: Reply[] = []
    while (replies.length < NBD_MAX_OPTIONS) {
      const reply = await this.#reply(option)
      replies.push(reply)
      if (reply.type === REPLY.ack) return replies
      if (reply.type >= REPLY.errUnsupported) {
        if (option !== OPTION.go && isRefusal(reply.type)) return replies
        throw this.#refusal(reply)
      }
    }
    throw this.#fault('answers one option without an end')
  }

  async #reply(option: number): Promise<Reply> {
    const head = await this.#reader.read(20)
    if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC || head.readUInt32BE(8) !== option)
      throw this.#fault('answers another option than was sent')
    const length = head.readUInt32BE(16)
    if (length > NBD_MAX_OPTION_BYTES) throw this.#fault(`answers an option with ${length} bytes`)
    return { type: head.readUInt32BE(12), data: await this.#reader.read(length) }
  }

  async #setContexts(contexts: readonly string[]): Promise<Map<string, number>> {
    const count = Buffer.alloc(4)
    count.writeUInt32BE(contexts.length)
    const request = Buffer.concat([withLength(this.#target.exportName), count, ...contexts.map(withLength)])
    const ids = new Map<string, number>()
    for (const { type, data } of await this.#ask(OPTION.setMetaContext, request)) {
      if (type !== REPLY.metaContext) continue
      if (data.byteLength < 4 || data.byteLength > 4 + MAX_STRING_BYTES) throw this.#fault('names a context wrongly')
      const name = data.subarray(4).toString()
      const id = data.readUInt32BE(0)
      if (!contexts.includes(name) || ids.has(name) || [...ids.values()].includes(id))
        throw this.#fault(`offers the context ${JSON.stringify(name)}, which was not asked for or is there already`)
      ids.set(name, id)
    }
    return ids
  }

  #facts(replies: readonly Reply[]): Omit<NbdFacts, 'structured' | 'contexts'> {
    let size: number | undefined
    let flags = 0
    let alignment = DEFAULT_ALIGNMENT_BYTES
    for (const { type, data } of replies) {
      if (type !== REPLY.info) continue
      if (data.byteLength < 2) throw this.#fault('gives information without saying about what')
      const kind = data.readUInt16BE(0)
      if (kind === INFO.export) {
        if (data.byteLength !== 12) throw this.#fault('describes its export wrongly')
        size = Number(data.readBigUInt64BE(2))
        flags = data.readUInt16BE(10)
      } else if (kind === INFO.blockSize) {
        if (data.byteLength !== 14) throw this.#fault('describes its block sizes wrongly')
        alignment = data.readUInt32BE(2)
      }
    }
    if (size === undefined || (flags & TRANSMIT.hasFlags) === 0) throw this.#fault('does not describe its export')
    if (!Number.isSafeInteger(size)) throw this.#fault(`has an export of ${size} bytes`)
    if (alignment > MAX_ALIGNMENT_BYTES || Math.log2(alignment) % 1 !== 0)
      throw this.#fault(`wants requests of multiples of ${alignment} bytes`)
    const has = (flag: number): boolean => (flags & flag) !== 0
    const { readOnly, sendFlush, sendFua } = TRANSMIT
    return { size, readOnly: has(readOnly), canFlush: has(sendFlush), canFua: has(sendFua), alignment }
  }

  #refusal({ type, data }: Reply): MeshError {
    const { uri, exportName } = this.#target
    const said = data.byteLength === 0 ? '' : ` (it says: ${data.subarray(0, MAX_STRING_BYTES).toString().trim()})`
    switch (type) {
      case REPLY.errUnknown:
        return new MeshError('NBD_ADDRESS_INVALID', `${uri}: there is no export ${JSON.stringify(exportName)}${said}`)
      case REPLY.errTlsRequired:
        return new MeshError('NBD_UNSUITABLE', `${uri} wants TLS, which is not supported${said}`)
      default:
        return new MeshError('NBD_UNSUITABLE', `${uri} refuses: error ${(type & 0xff).toString()}${said}`)
    }
  }

  #fault(what: string): MeshError {
    return new MeshError('NBD_PROTOCOL', `${this.#target.uri} ${what}`)
  }
}

/**
 * Whether a reply refuses one option and leaves the others possible. An unknown export is refused again when it is
 * asked for.
 */
function isRefusal(type: number): boolean {
  return [REPLY.errUnsupported, REPLY.errPolicy, REPLY.errInvalid, REPLY.errUnknown].some((one) => one === type)
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.byteLength)
  return Buffer.concat([length, bytes])
}
