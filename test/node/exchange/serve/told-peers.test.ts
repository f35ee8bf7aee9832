import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { LocalFacts } from '../../../../node/exchange/local-facts.ts'
import { PEERS_AGAIN_MS, PEERS_DELAY_MS } from '../../../../node/exchange/serve/limits.ts'
import { ExchangeServer } from '../../../../node/exchange/serve/server.ts'
import {
  EXCHANGE_PROTOCOL,
  MAX_ADDRESSES_PER_PEER,
  MAX_MEMBERS,
  MAX_TEXT_BYTES,
} from '../../../../protocol/constants.ts'
import type { PeerAddresses } from '../../../../protocol/message-parts.ts'
import { streamPair } from '../../../fakes/frame-stream-pair.ts'
import { useHosts } from '../../../support/hosts.ts'

const facts: LocalFacts = {
  siteId: Buffer.alloc(32, 1),
  name: 'server',
  metadata: { root: 1, timestamp: 1 },
  addresses: [],
  held: [],
}
const hello = { type: 'hello', versionMin: 2, versionMax: 2, creditBytes: 0, ...facts } as const

const addressOf = (i: number): string => `/ip4/192.168.1.${i}/tcp/7433`
const peer = (i: number, ...more: number[]): PeerAddresses => ({
  id: `peer ${i}`,
  addresses: [i, ...more].map(addressOf),
})

/** A server whose clock is the test's; `known` is what it knows of members. */
function makeServer(known: PeerAddresses[]) {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  const server = new ExchangeServer({ local: () => facts, holdings: () => [], peers: () => [...known] })
  onTestFinished(() => {
    server.close()
    vi.useRealTimers()
  })
  return server
}

/** Messages that a client is sent, each as the names it tells of. */
async function connect(server: ExchangeServer, name: string): Promise<{ told: string[][]; bytes: () => number }> {
  const [client, end] = streamPair(name, 'server')
  const told: string[][] = []
  void server.serve(end).catch(() => undefined)
  void (async () => {
    for await (const message of client.messages())
      if (message.type === 'peers') told.push(message.peers.map(({ id }) => id))
  })()
  await client.send(hello)
  await turns()
  return { told, bytes: () => client.bytesReceived }
}

async function turns(): Promise<void> {
  for (let n = 0; n < 10; n++) await new Promise((resolve) => setImmediate(resolve))
}

async function pass(ms: number): Promise<void> {
  vi.advanceTimersByTime(ms)
  await turns()
}

describe('ExchangeServer, telling where members are', () => {
  it('tells each client once of each other member, and of several that come together in one message', async () => {
    const known = [peer(1), peer(2)]
    const server = makeServer(known)
    const first = await connect(server, 'peer 1')
    expect(first.told).toEqual([['peer 2']])
    for (const i of [3, 4, 5]) {
      known.push(peer(i))
      server.peersChanged()
      await pass(PEERS_DELAY_MS / 10)
    }
    expect(first.told).toHaveLength(1)
    await pass(PEERS_DELAY_MS)
    expect(first.told.slice(1)).toEqual([['peer 3', 'peer 4', 'peer 5']])
    const second = await connect(server, 'peer 3')
    expect(second.told).toEqual([['peer 1', 'peer 2', 'peer 4', 'peer 5']])
    // Whoever goes and comes again was told of.
    known.splice(1, 1)
    server.peersChanged()
    await pass(PEERS_DELAY_MS)
    known.push(peer(2))
    server.peersChanged()
    await pass(PEERS_DELAY_MS)
    expect([first.told.length, second.told.length]).toEqual([2, 1])
  })

  it('tells again of new addresses, but not all the time', async () => {
    const known = [peer(2, 20)]
    const server = makeServer(known)
    const client = await connect(server, 'peer 1')
    known[0] = peer(20, 2)
    known[0] = { ...known[0], id: 'peer 2' }
    server.peersChanged()
    await pass(PEERS_DELAY_MS)
    // The same in another order is nothing new.
    expect(client.told).toHaveLength(1)
    for (let ms = 0; ms < 10 * PEERS_AGAIN_MS; ms += PEERS_DELAY_MS) {
      known[0] = { id: 'peer 2', addresses: [addressOf(ms)] }
      server.peersChanged()
      await pass(PEERS_DELAY_MS)
    }
    expect(client.told.length).toBeGreaterThan(9)
    expect(client.told.length).toBeLessThanOrEqual(11)
    // The last ones are told of though nothing changes any more.
    known[0] = peer(2)
    server.peersChanged()
    const before = client.told.length
    await pass(PEERS_AGAIN_MS + PEERS_DELAY_MS)
    expect(client.told.length).toBe(before + 1)
    await pass(10 * PEERS_AGAIN_MS)
    expect(client.told.length).toBe(before + 1)
  })

  it('tells again at once of a member that has signed its addresses, and as it has signed them', async () => {
    const known = [peer(2)]
    const server = makeServer(known)
    const [client, end] = streamPair('peer 1', 'server')
    void server.serve(end).catch(() => undefined)
    const told: PeerAddresses[] = []
    void (async () => {
      for await (const message of client.messages()) if (message.type === 'peers') told.push(...message.peers)
    })()
    await client.send(hello)
    await turns()
    known[0] = { ...peer(2), record: { text: 'signed', signature: 'AA' } }
    for (let i = 0; i < 2; i++) {
      server.peersChanged()
      await pass(PEERS_DELAY_MS)
    }
    expect(told).toEqual([peer(2), { ...peer(2), record: { text: 'signed', signature: 'AA' } }])
  })

  it('takes little of a room of 30 that comes one after the other', async () => {
    const known: PeerAddresses[] = []
    const server = makeServer(known)
    const clients = []
    for (let i = 0; i < 30; i++) {
      known.push({ id: `12D3KooW${String(i).padStart(44, '0')}`, addresses: [addressOf(i), '/ip4/127.0.0.1/tcp/7433'] })
      clients.push(await connect(server, known.at(-1)!.id))
      server.peersChanged()
      await pass(PEERS_DELAY_MS)
    }
    for (const { told, bytes } of clients) {
      expect(told.flat()).toHaveLength(29)
      expect(new Set(told.flat()).size).toBe(29)
      expect(bytes()).toBeLessThan(29 * 150)
    }
  })

  it('sends the longest list there can be in messages that fit a frame', async () => {
    const text = 'a'.repeat(MAX_TEXT_BYTES)
    const known = Array.from({ length: MAX_MEMBERS }, (_, i) => {
      return { id: `peer ${i}`, addresses: Array<string>(i < 64 ? MAX_ADDRESSES_PER_PEER : 1).fill(text) }
    })
    const client = await connect(makeServer(known), 'client')
    expect(client.told.flat()).toEqual(known.map(({ id }) => id))
    expect(client.told.length).toBeGreaterThan(1)
  })
})

describe('ExchangeServer, on real hosts', () => {
  const start = useHosts()

  it('tells a client that does nothing of a member that comes later', async () => {
    const [hub, early, late] = [await start('hub'), await start('early'), await start('late')]
    const known = new Map<string, readonly string[]>()
    const server = new ExchangeServer({
      local: () => facts,
      holdings: () => [],
      peers: () => [...known].map(([id, addresses]) => ({ id, addresses })),
      onHello: (peerId, { addresses }) => {
        known.set(peerId, addresses)
        server.peersChanged()
      },
    })
    onTestFinished(() => server.close())
    await hub.handle(EXCHANGE_PROTOCOL, (stream) => server.serve(stream))
    const join = async (host: typeof early) => {
      await host.connect(hub.peerId, hub.addresses())
      const stream = await host.open(hub.peerId, EXCHANGE_PROTOCOL)
      await stream.send({ ...hello, addresses: host.addresses() })
      return stream
    }
    const told = async (stream: Awaited<ReturnType<typeof join>>): Promise<readonly PeerAddresses[]> => {
      for await (const message of stream.messages()) if (message.type === 'peers') return message.peers
      return []
    }
    const first = await join(early)
    const second = await join(late)
    expect(await told(first)).toEqual([{ id: late.peerId, addresses: late.addresses() }])
    expect(await told(second)).toEqual([{ id: early.peerId, addresses: early.addresses() }])
  })
})
