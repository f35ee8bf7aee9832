import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import type { FrameStream } from '../../../node/net/frame-stream.ts'
import { type HostOptions, MeshHost } from '../../../node/net/host.ts'
import {
  ADDRESS_DIAL_DEADLINE_MS,
  MAX_CONNECTIONS_PER_PEER,
  MAX_STREAMS_PER_PROTOCOL,
  STREAM_BACKLOG_BYTES,
  STREAM_WINDOW_BYTES,
  STREAMS_BURST,
} from '../../../node/net/limits.ts'
import { loadOrCreateMachineKey } from '../../../node/trust/machine-key.ts'
import { codeOf } from '../../support/error-code.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const PROTOCOL = '/lab-mesh/test/1'
const LOOPBACK = '/ip4/127.0.0.1/tcp/0'
const PAYLOAD = 65536

describe('MeshHost', () => {
  const dir = useTempDir()
  const hosts: MeshHost[] = []
  afterEach(async () => {
    await Promise.all(hosts.splice(0).map((host) => host.stop()))
  })

  async function start(name: string, options: Partial<HostOptions> = {}): Promise<MeshHost> {
    const key = await loadOrCreateMachineKey(dir(`${name}.pem`))
    const host = await MeshHost.start({ key, listen: [LOOPBACK], gate: { admits: () => true }, ...options })
    hosts.push(host)
    return host
  }

  /** A stream from `a` to `b`, both ends. */
  async function pair(a: MeshHost, b: MeshHost): Promise<[FrameStream, FrameStream]> {
    const accepted = new Promise<FrameStream>((resolve) => {
      void b.handle(PROTOCOL, async (stream) => {
        resolve(stream)
        await new Promise(() => undefined)
      })
    })
    await a.connect(b.peerId, b.addresses())
    const opened = await a.open(b.peerId, PROTOCOL)
    await opened.send({ type: 'file-request', name: 'first' })
    return [opened, await accepted]
  }

  it('carries messages both ways between proven peers', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await pair(a, b)
    expect([client.peerId, server.peerId]).toEqual([b.peerId, a.peerId])
    const asked = server.messages()
    expect((await asked.next()).value).toEqual({ type: 'file-request', name: 'first' })
    await server.send({ type: 'file-reply', found: true, payload: Buffer.alloc(1024 * 1024, 7) })
    const { value } = await client.messages().next()
    expect(value).toMatchObject({ type: 'file-reply', found: true })
    expect(Buffer.alloc(1024 * 1024, 7).equals(value.payload)).toBe(true)
  })

  it('serves one peer on so many streams of a protocol and so many connections, whoever opened them', async () => {
    const server = await start('server')
    let served = 0
    await server.handle(PROTOCOL, async () => {
      served++
      await new Promise(() => undefined)
    })
    const counts: number[] = []
    server.onConnection((_, connections) => counts.push(connections))
    const nodes: MeshHost[] = []
    for (let i = 0; i < MAX_CONNECTIONS_PER_PEER + 2; i++) {
      const node = await start('one key')
      nodes.push(node)
      await node.connect(server.peerId, server.addresses())
      for (let i = 0; i < 2; i++) await node.open(server.peerId, PROTOCOL).catch(() => undefined)
    }
    await expect.poll(() => server.connectionsTo(nodes[0]!.peerId)).toBe(MAX_CONNECTIONS_PER_PEER)
    expect(counts).toHaveLength(MAX_CONNECTIONS_PER_PEER)
    await expect.poll(() => served).toBe(MAX_STREAMS_PER_PROTOCOL)
    // One that ends makes room for another.
    await nodes[0]!.stop()
    await expect.poll(() => server.connectionsTo(nodes[1]!.peerId)).toBeLessThan(MAX_CONNECTIONS_PER_PEER)
    await nodes[1]!.open(server.peerId, PROTOCOL)
    await expect.poll(() => served).toBe(MAX_STREAMS_PER_PROTOCOL + 1)
  })

  it('closes the connection of a peer that opens one stream after the other', async () => {
    const [client, server] = [await start('client'), await start('server')]
    await server.handle(PROTOCOL, async () => undefined)
    await client.connect(server.peerId, server.addresses())
    const opened = async (): Promise<string> => codeOf(client.open(server.peerId, PROTOCOL))
    let code = 'none'
    for (let i = 0; i < 2 * STREAMS_BURST && client.connected().length > 0; i++) code = await opened()
    expect(code).toBe('PEERS_UNREACHABLE')
    await expect.poll(() => server.connected()).toEqual([])
  })

  it('does not answer every message that it reads', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const proxy = await TcpProxy.start(b.addresses()[0]!, 'end')
    await a.connect(b.peerId, [proxy.address])
    const accepted = new Promise<FrameStream>((resolve) => {
      void b.handle(PROTOCOL, async (stream) => {
        resolve(stream)
        await new Promise(() => undefined)
      })
    })
    const client = await a.open(b.peerId, PROTOCOL)
    await client.send({ type: 'file-request', name: 'first' })
    const server = await accepted
    const received = client.messages()
    const before = proxy.bytesFromClient
    for (let i = 0; i < 100; i++) {
      await server.send({ type: 'file-reply', found: true, payload: Buffer.alloc(10) })
      await received.next()
    }
    // A window update takes 30 bytes, with what noise adds.
    expect(proxy.bytesFromClient - before).toBeLessThan(10 * 30)
    // And the window does not run dry.
    const blocks = (4 * STREAM_WINDOW_BYTES) / PAYLOAD
    const sending = (async () => {
      for (let i = 0; i < blocks; i++)
        await server.send({ type: 'file-reply', found: true, payload: Buffer.alloc(PAYLOAD) })
    })()
    for (let i = 0; i < blocks; i++) expect((await received.next()).value.payload.byteLength).toBe(PAYLOAD)
    await sending
  })

  it('connects to a peer that answers at once and takes its time for the rest', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const proxy = await TcpProxy.start(b.addresses()[0]!, 'end')
    proxy.delayMs = ADDRESS_DIAL_DEADLINE_MS + 500
    await a.connect(b.peerId, [proxy.address])
    expect(a.connected()).toEqual([b.peerId])
  })

  it('keeps its connections to two nodes with one key apart, and opens a stream on each', async () => {
    const boss = await start('boss')
    const counts: number[] = []
    const gone: string[] = []
    boss.onConnection((_, connections) => void counts.push(connections))
    boss.onDisconnect((peerId) => void gone.push(peerId))
    const [one, copy] = [await start('pc1'), await start('pc1')]
    const reached: string[] = []
    for (const [who, host] of Object.entries({ one, copy })) {
      await host.handle(PROTOCOL, async () => void reached.push(who))
      await host.connect(boss.peerId, boss.addresses())
    }
    await expect.poll(() => counts).toEqual([1, 2])
    expect(await boss.openAll(one.peerId, PROTOCOL)).toHaveLength(2)
    await expect.poll(() => reached.toSorted()).toEqual(['copy', 'one'])
    // When one goes, the other stays.
    await copy.stop()
    await expect.poll(() => boss.openAll(one.peerId, PROTOCOL)).toHaveLength(1)
    expect([boss.connected(), gone]).toEqual([[one.peerId], []])
  })

  it('meets whoever answers at an address, whatever its key, unless nobody does', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [address = ''] = b.addresses()
    expect(await a.meet(address)).toBe(b.peerId)
    expect(a.addressOf(b.peerId)).toBe('127.0.0.1')
    await b.stop()
    expect(await codeOf((await start('c')).meet(address))).toBe('PEERS_UNREACHABLE')
    expect(await codeOf(a.meet('/ip4/nowhere'))).toBe('ADDRESS_INVALID')
  })

  it('connects nobody whom either gate refuses', async () => {
    const member = await start('a')
    const stranger = await start('stranger')
    const closed = await start('b', { gate: { admits: (peerId) => peerId === member.peerId } })
    await member.connect(closed.peerId, closed.addresses())
    // The dialler may see the connection for a moment, but it can open nothing on it.
    const attempt = async (): Promise<void> => {
      await stranger.connect(closed.peerId, closed.addresses())
      await stranger.open(closed.peerId, PROTOCOL)
    }
    expect(await codeOf(attempt())).toBe('PEERS_UNREACHABLE')
    expect(closed.connected()).toEqual([member.peerId])
    expect(await codeOf(closed.connect(stranger.peerId, stranger.addresses()))).toBe('PEERS_UNREACHABLE')
    expect(stranger.connected()).toEqual([])
  })

  it('refuses a peer that is somebody else than expected', async () => {
    const [a, b, c] = [await start('a'), await start('b'), await start('c')]
    expect(await codeOf(a.connect(b.peerId, c.addresses()))).toBe('PEERS_UNREACHABLE')
    expect(await codeOf(a.connect(b.peerId, ['nonsense', '/ip4/127.0.0.1/tcp/1']))).toBe('PEERS_UNREACHABLE')
    expect(await codeOf(a.connect(b.peerId, []))).toBe('PEERS_UNREACHABLE')
  })

  it('says when its address is taken or none', async () => {
    const a = await start('a')
    expect(await codeOf(start('b', { listen: a.addresses() }))).toBe('PORT_TAKEN')
    expect(await codeOf(start('b', { listen: ['localhost:80'] }))).toBe('ADDRESS_INVALID')
    expect(await codeOf(start('b', { listen: ['/ip4/192.0.2.77/tcp/0'] }))).toBe('ADDRESS_INVALID')
  })

  it('stops a fast sender while the receiver does not read', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await pair(a, b)
    let sent = 0
    let stop = false
    const sending = (async () => {
      while (!stop) {
        await client.send({ type: 'file-reply', found: true, payload: Buffer.alloc(PAYLOAD, sent) })
        sent++
      }
    })()
    const settled = async (): Promise<number> => {
      for (let before = -1; before !== sent; ) {
        before = sent
        await new Promise((resolve) => setTimeout(resolve, 200))
      }
      return sent
    }
    const stuckAt = await settled()
    // What waits: the reader's backlog, yamux's window, and what both kernels and the sender buffer.
    expect(server.bytesReceived).toBeLessThan(STREAM_BACKLOG_BYTES + 3 * STREAM_WINDOW_BYTES)
    expect(stuckAt * PAYLOAD).toBeLessThan(24 * 1024 * 1024)
    let received = 0
    for await (const message of server.messages()) {
      if (message.type !== 'file-reply') continue
      expect(message.payload[0]).toBe(received % 256)
      if (++received === stuckAt + 100) break
    }
    stop = true
    client.abort(new Error('enough'))
    await sending.catch(() => undefined)
  })

  it('ends the readers and writers of a stream that is aborted or whose peer goes away', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await pair(a, b)
    const reading = server.messages()
    await reading.next()
    const waiting = reading.next()
    client.abort(new Error('bye'))
    await expect(waiting).rejects.toThrow()
    await expect(client.send({ type: 'file-request', name: 'x' })).rejects.toThrow()
    const [c, d] = [await start('c'), await start('d')]
    const [, second] = await pair(c, d)
    const rest = second.messages()
    await rest.next()
    const ended = rest.next().then(
      (next) => next.done,
      () => true,
    )
    await c.stop()
    expect(await ended).toBe(true)
  })

  it('reports a handler that fails, and goes on', async () => {
    const faults: string[] = []
    const [a, b] = [await start('a'), await start('b', { onError: (_, error) => faults.push(String(error)) })]
    await b.handle(PROTOCOL, async (stream) => {
      for await (const message of stream.messages()) throw new Error(`did not like ${message.type}`)
    })
    await a.connect(b.peerId, b.addresses())
    for (let i = 0; i < 3; i++) {
      const stream = await a.open(b.peerId, PROTOCOL)
      await stream.send({ type: 'file-request', name: 'x' })
      await expect(stream.messages().next()).rejects.toThrow()
    }
    expect(faults).toEqual(Array(3).fill('Error: did not like file-request'))
  })

  it('survives junk on its port', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const port = Number(/tcp\/(\d+)/.exec(b.addresses()[0] ?? '')?.[1])
    for (const junk of [Buffer.alloc(100_000, 0xff), Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.alloc(3)]) {
      await new Promise<void>((resolve) => {
        const socket = connect(port, '127.0.0.1', () => socket.write(junk))
        socket.on('error', () => socket.destroy())
        socket.on('close', () => resolve())
        setTimeout(() => socket.destroy(), 300)
      })
    }
    const [client, server] = await pair(a, b)
    expect([client.peerId, server.peerId]).toEqual([b.peerId, a.peerId])
  })
})
