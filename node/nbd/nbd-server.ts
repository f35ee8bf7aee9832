/**
 * The folder node/nbd is both ends of the NBD protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
 * - Server: `nbd-listen` opens the socket, `nbd-connection` is one client, `handshake` agrees with it on an `NbdExport`, and
 *   `transmission` then serves its requests: `nbd-request` reads them, `nbd-reply` answers, `incoming-write` takes their data.
 *   `shared-room` bounds what all clients together have in memory.
 * - Client: `nbd-client` connects by `client-handshake`, reads answers by `client-replies`; `nbd-device` makes a disk of it.
 * - Both: `nbd-protocol` has the numbers, `nbd-uri` the addresses, `limits` what one side may ask of the other.
 */

import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { BufferPool } from './buffer-pool.ts'
import { NBD_MAX_CONNECTIONS, NBD_STALL_MS } from './limits.ts'
import { NbdConnection } from './nbd-connection.ts'
import type { NbdExport } from './nbd-export.ts'
import { listenAt, type NbdAddress } from './nbd-listen.ts'
import { SharedRoom } from './shared-room.ts'
import type { Shared } from './transmission.ts'

interface NbdServerOptions {
  /**
   * The exports. Clients that connect before the promise resolves are kept waiting; if there are no exports they are
   * disconnected.
   */
  readonly exports: readonly NbdExport[] | Promise<readonly NbdExport[]>
  /** Told of faults: of a client (NBD_PROTOCOL, when it is disconnected) and of the export (DISK_IO and others). */
  readonly onFault?: (client: string, error: unknown) => void
}

/**
 * Serves disks to NBD clients by the fixed newstyle protocol with structured replies
 * (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). Whoever can connect can read and write: a Unix
 * socket is open to its owner only; TCP has no protection of its own.
 */
export class NbdServer {
  readonly #server: Server
  readonly #options: NbdServerOptions
  readonly #shared: Shared = { pool: new BufferPool(), room: new SharedRoom(() => this.#dropStalled()) }
  /** Clients that hold a place. */
  readonly #clients = new Set<NbdConnection>()
  /** Those, and clients that gave way and have something under way. */
  readonly #connections = new Set<NbdConnection>()
  #numbered = 0
  #closed: Promise<void> | undefined

  private constructor(server: Server, options: NbdServerOptions) {
    this.#server = server
    this.#options = options
    server.on('connection', (socket) => this.#accept(socket))
    // Clients that are connected are served on.
    server.on('error', (error) => this.#fault('a new client', error))
  }

  /** Errors: PORT_TAKEN, NBD_ADDRESS_INVALID. */
  static async listen(address: NbdAddress, options: NbdServerOptions): Promise<NbdServer> {
    const server = createServer({ noDelay: true, allowHalfOpen: true })
    await listenAt(server, address)
    return new NbdServer(server, options)
  }

  /**
   * The address as a client writes it: `nbd://HOST:PORT` or `nbd+unix:///?socket=PATH`; '' for a Unix socket that was
   * handed over.
   */
  get uri(): string {
    const address = this.#server.address()
    if (address === null || address === '') return ''
    if (typeof address === 'string') return `nbd+unix:///?socket=${encodeURIComponent(address).replaceAll('%2F', '/')}`
    return `nbd://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
  }

  /** Answers the requests under way, then closes every connection. Nothing is done to the exports after it resolves. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    await Promise.all([...this.#connections].map((connection) => connection.close()))
    await closed
  }

  #accept(socket: Socket): void {
    if (this.#closed !== undefined || !this.#makePlace()) {
      socket.destroy()
      return
    }
    const client = `client ${++this.#numbered}`
    const onFault = (error: unknown): void => this.#fault(client, error)
    const connection = new NbdConnection(socket, { exports: this.#options.exports, shared: this.#shared, onFault })
    this.#clients.add(connection)
    this.#connections.add(connection)
    void connection.ended.then(() => {
      this.#clients.delete(connection)
      this.#connections.delete(connection)
    })
  }

  /** Whether there is a place for a new client. If all are taken, the idlest one gives way. */
  #makePlace(): boolean {
    if (this.#clients.size < NBD_MAX_CONNECTIONS) return true
    const idle = [...this.#clients].filter((client) => client.mayGiveWay)
    if (idle.length === 0) {
      this.#fault('a new client', new Error(`refused, as ${NBD_MAX_CONNECTIONS} are connected, and none is idle`))
      return false
    }
    const idlest = idle.reduce((one, other) => (other.isIdlerThan(one) ? other : one))
    this.#drop(
      idlest,
      `gives way to a new client: ${NBD_MAX_CONNECTIONS} are connected, and this one was idle the longest`,
    )
    return true
  }

  /** Somebody waits for room: who does not take answers goes. */
  #dropStalled(): void {
    for (const client of this.#clients)
      if (client.isStalled)
        this.#drop(client, `takes no answers for ${NBD_STALL_MS / 1000} s, and others need the room`)
  }

  #drop(client: NbdConnection, reason: string): void {
    this.#clients.delete(client)
    client.drop(reason)
  }

  #fault(client: string, error: unknown): void {
    this.#options.onFault?.(client, error)
  }
}
