import { once } from 'node:events'
import type { FileHandle } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { portHolder } from '../../../node/net/port-holder.ts'
import { errnoOf, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { type OpenedFile, SERVED_FILES, type ServedFile } from './agent-folder.ts'
import {
  HEADERS_DEADLINE_MS,
  MAX_CONNECTIONS,
  MAX_CONNECTIONS_PER_ADDRESS,
  MAX_HEADER_BYTES,
  READ_AHEAD_BYTES,
  STALL_MS,
  TRANSFER_DEADLINE_MS,
} from './limits.ts'

/** UEFI starts a program only if its type or its name says that it is one. */
const TYPES: Readonly<Record<ServedFile, string>> = {
  'boot.ipxe': 'text/plain',
  vmlinuz: 'application/octet-stream',
  'agent.img': 'application/octet-stream',
  'agent.efi': 'application/efi',
}

interface FileServerOptions {
  readonly address: string
  /** 0 stands for one that is free. */
  readonly port: number
  readonly open: (name: ServedFile) => Promise<OpenedFile>
  /** Somebody has begun to fetch a file, or has its last byte. */
  readonly onFetch: (fetch: { address: string; name: ServedFile; isWhole: boolean }) => void
  /** A file cannot be served. */
  readonly onFault: (error: MeshError) => void
}

/** A web server that has the files of the agent and nothing else: GET and HEAD, one range of bytes, nothing is written. */
export class FileServer {
  readonly #server: Server
  readonly #options: FileServerOptions
  readonly #connections = new Map<string, number>()
  #told = ''

  private constructor(options: FileServerOptions) {
    this.#options = options
    this.#server = createServer(
      {
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: HEADERS_DEADLINE_MS,
        requestTimeout: HEADERS_DEADLINE_MS,
        connectionsCheckingInterval: HEADERS_DEADLINE_MS / 2,
      },
      (request, response) => void this.#answer(request, response),
    )
    this.#server.maxConnections = MAX_CONNECTIONS
    // A connection that stands still is ended.
    this.#server.timeout = STALL_MS
    this.#server.on('connection', (socket: Socket) => this.#admit(socket))
  }

  /** Listens. Errors: PORT_TAKEN with the process that has the port, BOOT_NETWORK. */
  static async listen(options: FileServerOptions): Promise<FileServer> {
    const server = new FileServer(options)
    const { address, port } = options
    server.#server.listen(port, address)
    try {
      await once(server.#server, 'listening')
    } catch (cause) {
      const why = errnoOf(cause)
      if (why !== 'EADDRINUSE')
        throw new MeshError('BOOT_NETWORK', `this machine cannot listen at ${address}, port ${port} (${why})`, {
          cause,
        })
      const holder = (await portHolder(port)) ?? 'another program'
      throw new MeshError('PORT_TAKEN', `${holder} has port ${port} (TCP) already; --port gives another`, { cause })
    }
    return server
  }

  /** The port that it listens on. */
  get port(): number {
    const at = this.#server.address()
    return typeof at === 'object' && at !== null ? at.port : 0
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    if (this.#server.listening) await once(this.#server, 'close')
  }

  #admit(socket: Socket): void {
    const from = socket.remoteAddress ?? ''
    const count = (this.#connections.get(from) ?? 0) + 1
    if (count > MAX_CONNECTIONS_PER_ADDRESS) {
      socket.destroy()
      return
    }
    this.#connections.set(from, count)
    socket.on('close', () => {
      const left = (this.#connections.get(from) ?? 1) - 1
      if (left === 0) this.#connections.delete(from)
      else this.#connections.set(from, left)
    })
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#serve(request, response)
    } catch (error) {
      // Whoever fetches has gone away, or the disk failed in the middle.
      if (isMeshError(error)) this.#tell(error)
      if (response.headersSent) response.destroy()
      else refuse(response, isMeshError(error) ? 503 : 500)
    }
  }

  /** A room asks for the same file again and again. */
  #tell(error: MeshError): void {
    if (error.message !== this.#told) this.#options.onFault(error)
    this.#told = error.message
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method } = request
    if (method !== 'GET' && method !== 'HEAD') {
      refuse(response, 405, { Allow: 'GET, HEAD' })
      return
    }
    const name = SERVED_FILES.find((one) => pathOf(request) === `/${one}`)
    if (name === undefined) {
      refuse(response, 404)
      return
    }
    const file = await this.#options.open(name)
    try {
      await this.#send(request, response, name, file)
    } finally {
      await file.handle.close()
    }
  }

  async #send(
    request: IncomingMessage,
    response: ServerResponse,
    name: ServedFile,
    { handle, size, sha256 }: OpenedFile,
  ): Promise<void> {
    const etag = `"${sha256}"`
    const [range, only] = [request.headers.range, request.headers['if-range']]
    const part = range === undefined || (only !== undefined && only !== etag) ? 'whole' : rangeOf(range, size)
    if (part === 'none') {
      refuse(response, 416, { 'Content-Range': `bytes */${size}` })
      return
    }
    const { start, end } = part === 'whole' ? { start: 0, end: size - 1 } : part
    response.writeHead(part === 'whole' ? 200 : 206, {
      'Content-Type': TYPES[name],
      'Content-Length': end - start + 1,
      'Accept-Ranges': 'bytes',
      ETag: etag,
      ...(part === 'whole' ? {} : { 'Content-Range': `bytes ${start}-${end}/${size}` }),
    })
    if (request.method === 'HEAD' || end < start) {
      response.end()
      return
    }
    const address = (request.socket.remoteAddress ?? '').replace(/^::ffff:/, '')
    this.#options.onFetch({ address, name, isWhole: false })
    await stream(handle, { start, end }, response)
    if (end === size - 1) this.#options.onFetch({ address, name, isWhole: true })
  }
}

async function stream(
  handle: FileHandle,
  { start, end }: { start: number; end: number },
  response: ServerResponse,
): Promise<void> {
  const content = handle.createReadStream({ start, end, highWaterMark: READ_AHEAD_BYTES, autoClose: false })
  const late = setTimeout(() => response.destroy(), TRANSFER_DEADLINE_MS)
  await pipeline(content, response).finally(() => clearTimeout(late))
}

/** Path of a request, in which `..` and percent signs are resolved. Nothing but the name of a file is ever compared with it. */
function pathOf({ url = '/' }: IncomingMessage): string {
  try {
    return decodeURIComponent(new URL(url, 'http://agent').pathname)
  } catch {
    return ''
  }
}

/** One range (RFC 9110, 14.1.2). Several, or what is no range, ask for the whole file; `none`: behind its end. */
function rangeOf(header: string, size: number): { start: number; end: number } | 'whole' | 'none' {
  const [, from = '', to = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim()) ?? []
  if (from === '' && to === '') return 'whole'
  if (from === '') return Number(to) === 0 ? 'none' : { start: Math.max(0, size - Number(to)), end: size - 1 }
  const [start, end] = [Number(from), to === '' ? size - 1 : Math.min(Number(to), size - 1)]
  if (to !== '' && Number(to) < start) return 'whole'
  return start >= size ? 'none' : { start, end }
}

function refuse(response: ServerResponse, status: number, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(status, { ...headers, 'Content-Length': 0 }).end()
}
