import { MeshError } from '../../protocol/errors.ts'
import type { ByteReader } from './byte-reader.ts'
import { NBD_MAX_OPTION_BYTES, NBD_MAX_OPTIONS, NBD_MAX_REQUEST_BYTES, NBD_PREFERRED_BYTES } from './limits.ts'
import type { MetaContext, NbdExport } from './nbd-export.ts'
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

/** What client and server agreed on. */
export interface Agreement {
  readonly export: NbdExport
  /** Reads are answered by structured replies. */
  readonly structured: boolean
  /** Contexts that block status requests are answered for; their ids are their places, from 1. */
  readonly contexts: readonly MetaContext[]
}

type Send = (bytes: Buffer) => void

/**
 * The server's side of the fixed newstyle handshake. Resolves to undefined if the client ends it in an orderly way, by
 * the abort option or by leaving between two options. Errors: NBD_PROTOCOL; the caller then closes the connection.
 */
export async function negotiate(
  reader: ByteReader,
  send: Send,
  exports: readonly NbdExport[],
): Promise<Agreement | undefined> {
  const greeting = Buffer.alloc(18)
  greeting.writeBigUInt64BE(NBD_MAGIC, 0)
  greeting.writeBigUInt64BE(OPTION_MAGIC, 8)
  greeting.writeUInt16BE(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES, 16)
  send(greeting)
  const flags = (await reader.readUnlessEnded(4))?.readUInt32BE(0)
  if (flags === undefined) return undefined
  if ((flags & ~(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)) !== 0) throw fault(`client flags ${flags} are not known`)
  const handshake = new Handshake(send, exports, (flags & FLAG_NO_ZEROES) !== 0)
  for (let options = 0; options < NBD_MAX_OPTIONS; options++) {
    const head = await reader.readUnlessEnded(16)
    if (head === undefined) return undefined
    if (head.readBigUInt64BE(0) !== OPTION_MAGIC) throw fault('an option does not begin with IHAVEOPT')
    const [option, length] = [head.readUInt32BE(8), head.readUInt32BE(12)]
    if (length > NBD_MAX_OPTION_BYTES) {
      handshake.refuse(option, REPLY.errTooBig, 'the option is too long')
      throw fault(`an option of ${length} bytes`)
    }
    const outcome = handshake.option(option, await reader.read(length))
    if (outcome === 'abort') return undefined
    if (outcome !== undefined) return outcome
  }
  throw fault('too many options')
}

class Handshake {
  readonly #send: Send
  readonly #exports: readonly NbdExport[]
  readonly #noZeroes: boolean
  #structured = false
  #contexts: { export: NbdExport; contexts: MetaContext[] } | undefined

  constructor(send: Send, exports: readonly NbdExport[], noZeroes: boolean) {
    this.#send = send
    this.#exports = exports
    this.#noZeroes = noZeroes
  }

  option(option: number, data: Buffer): Agreement | 'abort' | undefined {
    switch (option) {
      case OPTION.exportName:
        return this.#exportName(data)
      case OPTION.abort:
        this.#reply(option, REPLY.ack)
        return 'abort'
      case OPTION.list:
        return this.#list(option, data)
      case OPTION.info:
      case OPTION.go:
        return this.#go(option, data)
      case OPTION.structuredReply:
        if (data.byteLength > 0) return this.refuse(option, REPLY.errInvalid, 'the option takes no data')
        this.#structured = true
        return this.#reply(option, REPLY.ack)
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        return this.#metaContext(option, data)
      default:
        return this.refuse(option, REPLY.errUnsupported, 'the option is not supported')
    }
  }

  refuse(option: number, error: number, message: string): undefined {
    return this.#reply(option, error, Buffer.from(message))
  }

  /** This option has no answer for errors, so an error closes the connection. */
  #exportName(data: Buffer): Agreement {
    const found = this.#find(data.toString())
    if (found === undefined) throw fault(`there is no export ${JSON.stringify(data.toString())}`)
    const reply = Buffer.alloc(this.#noZeroes ? 10 : 134)
    reply.writeBigUInt64BE(BigInt(found.size), 0)
    reply.writeUInt16BE(transmissionFlags(found, this.#structured), 8)
    this.#send(reply)
    return this.#agree(found)
  }

  #list(option: number, data: Buffer): undefined {
    if (data.byteLength > 0) return this.refuse(option, REPLY.errInvalid, 'the option takes no data')
    for (const { name, description } of this.#exports)
      this.#reply(option, REPLY.server, withLength(name), Buffer.from(description))
    return this.#reply(option, REPLY.ack)
  }

  #go(option: number, data: Buffer): Agreement | undefined {
    const fields = new Fields(data)
    const name = fields.text()
    const count = fields.uint16()
    const wanted = Array.from({ length: count ?? 0 }, () => fields.uint16())
    if (name === undefined || count === undefined || !fields.atEnd)
      return this.refuse(option, REPLY.errInvalid, 'the option is not well-formed')
    const found = this.#find(name)
    if (found === undefined) return this.refuse(option, REPLY.errUnknown, 'there is no such export')
    const facts = Buffer.alloc(12)
    facts.writeUInt16BE(INFO.export, 0)
    facts.writeBigUInt64BE(BigInt(found.size), 2)
    facts.writeUInt16BE(transmissionFlags(found, this.#structured), 10)
    this.#reply(option, REPLY.info, facts)
    if (wanted.includes(INFO.name)) this.#reply(option, REPLY.info, uint16(INFO.name), Buffer.from(found.name))
    if (wanted.includes(INFO.description))
      this.#reply(option, REPLY.info, uint16(INFO.description), Buffer.from(found.description))
    this.#reply(option, REPLY.info, uint16(INFO.blockSize), blockSizes())
    this.#reply(option, REPLY.ack)
    return option === OPTION.go ? this.#agree(found) : undefined
  }

  #metaContext(option: number, data: Buffer): undefined {
    const setting = option === OPTION.setMetaContext
    // The contexts that were set before do not hold any more, even if this option is refused.
    if (setting) this.#contexts = undefined
    if (!this.#structured) return this.refuse(option, REPLY.errInvalid, 'structured replies come first')
    const fields = new Fields(data)
    const name = fields.text()
    const count = fields.uint32()
    const queries: string[] = []
    for (let i = 0; i < (count ?? 0) && !fields.failed; i++) queries.push(fields.text() ?? '')
    if (name === undefined || count === undefined || !fields.atEnd)
      return this.refuse(option, REPLY.errInvalid, 'the option is not well-formed')
    const found = this.#find(name)
    if (found === undefined) return this.refuse(option, REPLY.errUnknown, 'there is no such export')
    const listing = !setting && queries.length === 0
    const chosen = found.contexts.filter(
      (context) => listing || queries.some((query) => matches(context.name, query, !setting)),
    )
    for (const [i, context] of chosen.entries())
      this.#reply(option, REPLY.metaContext, uint32(setting ? i + 1 : 0), Buffer.from(context.name))
    if (setting) this.#contexts = { export: found, contexts: chosen }
    return this.#reply(option, REPLY.ack)
  }

  /** Finds an export. The empty name means the first one. */
  #find(name: string): NbdExport | undefined {
    return this.#exports.find((one) => one.name === name) ?? (name === '' ? this.#exports[0] : undefined)
  }

  #agree(found: NbdExport): Agreement {
    const contexts = this.#contexts?.export === found ? this.#contexts.contexts : []
    return { export: found, structured: this.#structured, contexts }
  }

  #reply(option: number, type: number, ...data: Buffer[]): undefined {
    const head = Buffer.alloc(20)
    head.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0)
    head.writeUInt32BE(option, 8)
    head.writeUInt32BE(type, 12)
    head.writeUInt32BE(
      data.reduce((sum, part) => sum + part.byteLength, 0),
      16,
    )
    this.#send(Buffer.concat([head, ...data]))
  }
}

/** Whether a query means a context: by its name or, in a list, by its namespace (`base:`). */
function matches(name: string, query: string, listing: boolean): boolean {
  return name === query || (listing && query.endsWith(':') && name.startsWith(query))
}

/** The flags of an export. The flag for unfragmented reads is allowed only with structured replies. */
function transmissionFlags(served: NbdExport, structured: boolean): number {
  const { hasFlags, readOnly, sendFlush, sendFua, sendTrim, sendWriteZeroes, sendDf, canMultiConn, sendCache } =
    TRANSMIT
  const always = hasFlags | sendFlush | canMultiConn | sendCache | (structured ? sendDf : 0)
  return served.readOnly ? always | readOnly : always | sendFua | sendTrim | sendWriteZeroes
}

function blockSizes(): Buffer {
  return Buffer.concat([uint32(1), uint32(NBD_PREFERRED_BYTES), uint32(NBD_MAX_REQUEST_BYTES)])
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([uint32(bytes.byteLength), bytes])
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** Reads fields one after the other. The first field that is cut off, and every field after it, is undefined. */
class Fields {
  readonly #data: Buffer
  #at = 0
  failed = false

  constructor(data: Buffer) {
    this.#data = data
  }

  get atEnd(): boolean {
    return !this.failed && this.#at === this.#data.byteLength
  }

  uint16(): number | undefined {
    return this.#take(2)?.readUInt16BE(0)
  }

  uint32(): number | undefined {
    return this.#take(4)?.readUInt32BE(0)
  }

  text(): string | undefined {
    const length = this.uint32()
    if (length === undefined || length > MAX_STRING_BYTES) {
      this.failed = true
      return undefined
    }
    return this.#take(length)?.toString()
  }

  #take(length: number): Buffer | undefined {
    if (this.failed || this.#data.byteLength - this.#at < length) {
      this.failed = true
      return undefined
    }
    this.#at += length
    return this.#data.subarray(this.#at - length, this.#at)
  }
}

function fault(what: string): MeshError {
  return new MeshError('NBD_PROTOCOL', `NBD handshake: ${what}`)
}
