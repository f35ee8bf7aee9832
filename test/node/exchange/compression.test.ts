import { zstdCompressSync } from 'node:zlib'
import { afterEach, describe, expect, it } from 'vitest'
import { Swarm } from '../../../node/exchange/ask/swarm.ts'
import { ExchangeServer } from '../../../node/exchange/serve/server.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { CODING, type Message } from '../../../protocol/messages.ts'
import { Random } from '../../../tools/lab/random.ts'
import { streamPair } from '../../fakes/frame-stream-pair.ts'
import { MemoryHolding } from '../../fakes/memory-holding.ts'
import { testSeed } from '../../support/seed.ts'
import { facts } from '../../support/swarm-net.ts'
import { systemBytes } from '../../support/system-bytes.ts'

const BLOCK = 65536
const MIB = 1024 ** 2
const MBIT = 125_000
const random = new Random(testSeed('compressed exchange'))

type BlockMessage = Extract<Message, { type: 'block' }>

function imageOf(content: Uint8Array, blockSize = BLOCK): MemoryHolding {
  const blocks = Array.from({ length: content.byteLength / blockSize }, (_, i) =>
    content.subarray(i * blockSize, (i + 1) * blockSize),
  )
  return new MemoryHolding(blocks, blocks.keys(), blockSize)
}

describe('an exchange over a link of some speed', () => {
  const swarms: Swarm[] = []
  afterEach(() => {
    for (const swarm of swarms.splice(0)) swarm.close()
  })

  /** A swarm with one peer, whose blocks take as long as they would on the link; that time is counted, not waited for. */
  function connect(holding: MemoryHolding, mbit: number, change: (message: BlockMessage) => Message = (m) => m) {
    const sent: BlockMessage[] = []
    let clock = 0
    const server = new ExchangeServer({
      local: () => facts('server', [holding]),
      holdings: () => [holding],
      peers: () => [],
    })
    const [client, end] = streamPair('me', 'server')
    const send = end.send.bind(end)
    end.send = async (message) => {
      if (message.type !== 'block') return send(message)
      sent.push(message)
      clock += (message.payload.byteLength * 1000) / (mbit * MBIT)
      // On every machine zstd is as fast as on a small one.
      await send(change(message.coding === CODING.zstd ? { ...message, packedUs: 330 } : message))
    }
    const swarm = new Swarm({
      self: 'me',
      open: async () => {
        if (client.bytesSent > 0) throw new Error('once is enough')
        void server.serve(end).catch(() => undefined)
        return client
      },
      local: () => facts('me', []),
      imageOf: () => holding,
      random: () => random.next(),
      now: () => clock,
      deadlines: { peerWaitMs: 1e9, progressDeadlineMs: 1e9, stallDisconnectMs: 1e9 },
    })
    swarms.push(swarm)
    swarm.addPeer('server')
    return { swarm, sent, client }
  }

  async function fetchAll(swarm: Swarm, holding: MemoryHolding, granules?: Bitmap): Promise<number> {
    const { root, blocks, blockSize } = holding
    const wanted = new Bitmap(blocks.length)
    for (const index of blocks.keys()) wanted.set(index)
    const read = async (index: number): Promise<Uint8Array> => {
      const here = Buffer.from(blocks[index]!)
      for (const i of granules!.values()) here.fill(0x55, i * 4096, (i + 1) * 4096)
      return here
    }
    const request = {
      root,
      level: 0,
      blockSize,
      wanted,
      digestOf: async (index: number) => digestOf(blocks[index]!),
      ...(granules === undefined ? {} : { sparse: { granules: () => granules, read } }),
    }
    let [count, received] = [0, 0]
    for await (const block of swarm.fetch(request, new AbortController().signal)) {
      expect(Buffer.compare(block.data, blocks[block.index]!)).toBe(0)
      count++
      received += block.received
    }
    expect(count).toBe(blocks.length)
    return received
  }

  const payloads = (sent: readonly BlockMessage[]): number =>
    sent.reduce((sum, { payload }) => sum + payload.byteLength, 0)
  const compressed = (sent: readonly BlockMessage[]): number =>
    sent.filter(({ coding }) => coding === CODING.zstd).length

  it.each([5, 20, 100])('at %d Mbit/s a system travels compressed, and is counted as it travelled', async (mbit) => {
    const holding = imageOf(systemBytes(16 * MIB))
    const { swarm, sent, client } = connect(holding, mbit)
    const received = await fetchAll(swarm, holding)
    expect(received).toBe(payloads(sent))
    expect(client.bytesReceived).toBeLessThan(0.65 * 16 * MIB)
    expect(swarm.ledger.of('server')).toMatchObject({ bytes: received, blocks: 256, bad: 0 })
  })

  it('random data travels plain, and costs no byte more', async () => {
    const holding = imageOf(random.bytes(4 * MIB))
    const { swarm, sent, client } = connect(holding, 5)
    expect(await fetchAll(swarm, holding)).toBe(4 * MIB)
    expect(compressed(sent)).toBe(0)
    // Frames of 8 bytes, and a header of 2 bytes and the id.
    expect(client.bytesReceived).toBeLessThan(4 * MIB + 64 * 20 + 500)
  })

  it('on a fast link everything is plain as soon as the link is known to be fast', async () => {
    const holding = imageOf(systemBytes(48 * MIB))
    const { swarm, sent } = connect(holding, 40_000)
    await fetchAll(swarm, holding)
    expect(compressed(sent)).toBeGreaterThan(0)
    expect(compressed(sent.slice(-256))).toBe(0)
  })

  it('answers of 4 KiB travel compressed over an uplink once it is known to be slow, and plain on a LAN', async () => {
    const holding = imageOf(systemBytes(MIB), 4096)
    const slow = connect(holding, 5)
    const first = await fetchAll(slow.swarm, holding)
    expect(first).toBeGreaterThan(0.65 * MIB)
    expect(await fetchAll(slow.swarm, holding)).toBeLessThan(0.65 * MIB)
    const fast = connect(holding, 1000)
    await fetchAll(fast.swarm, holding)
    expect(compressed(fast.sent)).toBe(0)
  })

  it('granules of a block are compressed together, and put together with those that are here', async () => {
    const holding = imageOf(systemBytes(4 * MIB))
    const granules = new Bitmap(16)
    for (const i of [0, 3, 4, 7, 9, 10, 14, 15]) granules.set(i)
    const { swarm, sent } = connect(holding, 100)
    const received = await fetchAll(swarm, holding, granules)
    expect(compressed(sent)).toBeGreaterThan(32)
    expect(received).toBe(payloads(sent))
    expect(received).toBeLessThan(0.65 * 2 * MIB)
  })

  it.each([
    ['does not unpack', (m: BlockMessage) => ({ ...m, payload: m.payload.subarray(0, -1) })],
    ['unpacks to more', (m: BlockMessage) => ({ ...m, payload: zstdCompressSync(Buffer.alloc(100 * MIB)) })],
    ['unpacks to less', (m: BlockMessage) => ({ ...m, payload: zstdCompressSync(Buffer.alloc(BLOCK / 2)) })],
    ['unpacks to other content', (m: BlockMessage) => ({ ...m, payload: zstdCompressSync(Buffer.alloc(BLOCK, 1)) })],
    ['is called plain', (m: BlockMessage) => ({ ...m, coding: CODING.plain })],
  ])('bans a peer whose compressed answer %s', async (_, change) => {
    const holding = imageOf(systemBytes(MIB))
    const { swarm } = connect(holding, 100, (m) => (m.coding === CODING.zstd ? change(m) : m))
    const fetching = fetchAll(swarm, holding).catch((error: Error) => error)
    while (!swarm.ledger.isBanned('server')) await new Promise((resolve) => setTimeout(resolve, 10))
    expect(swarm.peers()).toEqual([])
    swarm.close()
    expect(await fetching).toMatchObject({ code: 'INTERRUPTED' })
  })
})
