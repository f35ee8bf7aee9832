import { connect, createServer, type Server, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/** A TCP relay in front of a port on loopback, that can be cut as a machine is that goes down. */
export class TcpProxy {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #bytesToClient = 0
  /** Bytes that clients have sent. */
  bytesFromClient = 0
  /** How long what a client sends first is held back. */
  delayMs = 0
  #cutAt = Number.POSITIVE_INFINITY
  readonly #how: 'end' | 'reset'

  private constructor(port: number, how: 'end' | 'reset') {
    this.#how = how
    this.#server = createServer((client) => this.#relay(client, connect(port, '127.0.0.1')))
  }

  /** `how` a client sees the cut: the end of the connection (FIN), or a reset. Closed when the test ends. */
  static async start(target: string, how: 'end' | 'reset'): Promise<TcpProxy> {
    const proxy = new TcpProxy(Number(/\/tcp\/(\d+)/.exec(target)?.[1]), how)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      proxy.#server.close()
      for (const socket of proxy.#sockets) socket.destroy()
    })
    return proxy
  }

  get address(): string {
    const at = this.#server.address()
    return `/ip4/127.0.0.1/tcp/${typeof at === 'object' ? at?.port : ''}`
  }

  /** Cuts after so many more bytes from the server. */
  cutAfter(bytes: number): void {
    this.#cutAt = this.#bytesToClient + bytes
  }

  #relay(client: Socket, server: Socket): void {
    for (const socket of [client, server]) {
      this.#sockets.add(socket)
      socket.on('error', () => socket.destroy())
    }
    setTimeout(() => {
      client.on('data', (data: Buffer) => {
        this.bytesFromClient += data.byteLength
      })
      client.pipe(server)
    }, this.delayMs)
    server.on('data', (data: Buffer) => {
      this.#bytesToClient += data.byteLength
      if (this.#bytesToClient <= this.#cutAt) client.write(data)
      else this.#cut(client, server)
    })
  }

  #cut(client: Socket, server: Socket): void {
    this.#cutAt = Number.POSITIVE_INFINITY
    server.removeAllListeners('data')
    server.pause()
    if (this.#how === 'reset') client.resetAndDestroy()
    else client.end()
    server.destroy()
  }
}
