import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { ByteReader } from '../../node/nbd/byte-reader.ts'
import { OPTION, OPTION_MAGIC, OPTION_REPLY_MAGIC, REPLY } from '../../node/nbd/nbd-protocol.ts'

export interface OptionReply {
  readonly option: number
  readonly type: number
  readonly data: Buffer
}

/** One message of the server in the transmission phase. */
export interface Reply {
  readonly cookie: number
  /** 0 if it is no error. */
  readonly error: number
  /** Of a chunk; undefined for a simple reply. */
  readonly chunk?: { readonly type: number; readonly flags: number; readonly payload: Buffer }
}

export interface RawRequest {
  readonly command: number
  readonly flags?: number
  readonly cookie?: number
  readonly offset?: number | bigint
  readonly length?: number
  readonly data?: Uint8Array
}

/** An NBD client that sends whatever bytes a test wants, and shows what came back. */
export class RawNbd {
  readonly socket: Socket
  readonly #reader = new ByteReader()
  readonly #closed: Promise<unknown>

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk) => this.#reader.push(chunk))
    socket.on('close', () => this.#reader.end())
    socket.on('error', () => undefined)
    // Not once(): an error before it is of no interest.
    this.#closed = new Promise((resolve) => socket.on('close', resolve))
  }

  /** Connected; the server's greeting is not read yet. */
  static async connect(path: string): Promise<RawNbd> {
    const socket = connect(path)
    await once(socket, 'connect')
    return new RawNbd(socket)
  }

  /** In the transmission phase of the default export. */
  static async ready(path: string, options: { structured?: boolean; contexts?: string[] } = {}): Promise<RawNbd> {
    const client = await RawNbd.connect(path)
    await client.greet()
    if (options.structured !== false) await client.option(OPTION.structuredReply)
    if (options.contexts !== undefined)
      await client.option(OPTION.setMetaContext, contextQuery('', ...options.contexts))
    await client.option(OPTION.go, goData(''))
    return client
  }

  async greet(flags = 3): Promise<Buffer> {
    const greeting = await this.read(18)
    this.send(u32(flags))
    return greeting
  }

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts))
  }

  read(length: number): Promise<Buffer> {
    return this.#reader.read(length)
  }

  /** Sends an option and reads its replies up to the one that ends them. */
  async option(option: number, data: Uint8Array = Buffer.alloc(0)): Promise<OptionReply[]> {
    this.send(optionBytes(option, data))
    const replies: OptionReply[] = []
    for (;;) {
      const head = await this.read(20)
      if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw new Error('no option reply')
      const reply = {
        option: head.readUInt32BE(8),
        type: head.readUInt32BE(12),
        data: await this.read(head.readUInt32BE(16)),
      }
      replies.push(reply)
      if (reply.type === REPLY.ack || reply.type >= 2 ** 31) return replies
    }
  }

  request(request: RawRequest): void {
    this.send(requestBytes(request))
  }

  /** Reads one reply; `dataLength`: what follows a simple one without an error. */
  async reply(): Promise<Reply> {
    const magic = (await this.read(4)).readUInt32BE(0)
    if (magic === 0x67446698) {
      const rest = await this.read(12)
      return { error: rest.readUInt32BE(0), cookie: Number(rest.readBigUInt64BE(4)) }
    }
    if (magic !== 0x668e33ef) throw new Error(`magic ${magic.toString(16)}`)
    const rest = await this.read(16)
    const [flags, type] = [rest.readUInt16BE(0), rest.readUInt16BE(2)]
    const payload = await this.read(rest.readUInt32BE(12))
    const error = type >= 0x8000 ? payload.readUInt32BE(0) : 0
    return { error, cookie: Number(rest.readBigUInt64BE(4)), chunk: { type, flags, payload } }
  }

  /** Sends a request and reads its reply. */
  async ask(request: RawRequest): Promise<Reply> {
    this.request(request)
    return this.reply()
  }

  /** Resolves when the server has closed the connection. */
  async disconnected(): Promise<void> {
    await this.#closed
  }

  close(): void {
    this.socket.destroy()
  }
}

export function requestBytes({ command, flags = 0, cookie = 7, offset = 0, length = 0, data }: RawRequest): Buffer {
  const header = Buffer.alloc(28)
  header.writeUInt32BE(0x25609513, 0)
  header.writeUInt16BE(flags, 4)
  header.writeUInt16BE(command, 6)
  header.writeBigUInt64BE(BigInt(cookie), 8)
  header.writeBigUInt64BE(BigInt(offset), 16)
  header.writeUInt32BE(data?.byteLength ?? length, 24)
  return data === undefined ? header : Buffer.concat([header, data])
}

export function optionBytes(option: number, data: Uint8Array, length = data.byteLength): Buffer {
  const head = Buffer.alloc(16)
  head.writeBigUInt64BE(OPTION_MAGIC, 0)
  head.writeUInt32BE(option, 8)
  head.writeUInt32BE(length, 12)
  return Buffer.concat([head, data])
}

export function goData(name: string, ...infos: number[]): Buffer {
  return Buffer.concat([text(name), u16(infos.length), ...infos.map(u16)])
}

export function contextQuery(name: string, ...queries: string[]): Buffer {
  return Buffer.concat([text(name), u32(queries.length), ...queries.map(text)])
}

export function text(value: string): Buffer {
  return Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)])
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
