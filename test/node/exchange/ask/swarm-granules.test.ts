import { afterEach, describe, expect, it } from 'vitest'
import type { FetchedBlock, FetchRequest } from '../../../../node/exchange/ask/fetch-request.ts'
import type { Swarm } from '../../../../node/exchange/ask/swarm.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { encodeGranules } from '../../../../protocol/granules.ts'
import type { Message } from '../../../../protocol/messages.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { all, Net, never, random, request } from '../../../support/swarm-net.ts'

describe('Swarm, asked for some granules of blocks', () => {
  const net = new Net()
  afterEach(() => net.close())

  const GRANULE = 4096
  const SIZE = 4 * GRANULE
  const mask = (...granules: number[]): Bitmap => {
    const bitmap = new Bitmap(4)
    for (const i of granules) bitmap.set(i)
    return bitmap
  }

  /** Blocks of four granules, one of them zeros, and a disk on which granules 1 and 3 of each block are wrong. */
  function makeSparse(count: number) {
    const blocks = Array.from({ length: count }, () => {
      const block = random.bytes(SIZE)
      block.fill(0, 3 * GRANULE)
      return block
    })
    const disk = blocks.map((block) => {
      const wrong = Buffer.from(block)
      wrong.set(random.bytes(GRANULE), GRANULE)
      wrong.set(random.bytes(GRANULE), 3 * GRANULE)
      return wrong
    })
    const holding = new MemoryHolding(blocks, all(count), SIZE)
    const sparse = { granules: () => mask(1, 3), read: async (index: number) => Buffer.from(disk[index]!) }
    return { blocks, disk, holding, request: { ...request(holding), blockSize: SIZE, sparse } }
  }

  async function collect(swarm: Swarm, wanted: FetchRequest): Promise<FetchedBlock[]> {
    const got: FetchedBlock[] = []
    for await (const block of swarm.fetch(wanted, never)) got.push(block)
    return got.toSorted((a, b) => a.index - b.index)
  }

  it('receives only those, and never zeros, and gives whole blocks', async () => {
    const { blocks, holding, request: wanted } = makeSparse(30)
    const sent: number[] = []
    net.serve('peer', holding, (message) => {
      if (message.type === 'block') sent.push(message.payload.byteLength)
      return message
    })
    const swarm = net.swarm('me')
    swarm.addPeer('peer')
    const got = await collect(swarm, wanted)
    for (const { index, data, received, granules, neighboursWrong } of got) {
      expect(Buffer.compare(data, blocks[index]!)).toBe(0)
      expect([...granules!.values()]).toEqual([1, 3])
      expect([received, neighboursWrong]).toEqual([GRANULE, undefined])
    }
    expect(sent).toEqual(Array(30).fill(GRANULE))
  })

  it('finds out that its own granules are wrong, and blames no peer', async () => {
    const { blocks, disk, holding, request: wanted } = makeSparse(10)
    disk[4]![5] = disk[4]![5]! ^ 1
    net.serve('peer', holding)
    const swarm = net.swarm('me')
    swarm.addPeer('peer')
    const got = await collect(swarm, wanted)
    for (const { index, data } of got) expect(Buffer.compare(data, blocks[index]!)).toBe(0)
    expect(got.filter(({ neighboursWrong }) => neighboursWrong).map(({ index }) => index)).toEqual([4])
    expect(got[4]).not.toHaveProperty('granules')
    expect(swarm.ledger.of('peer').bad).toBe(0)
  })

  it.each([
    ['granules only', (m: Message) => (m.type === 'block' && m.payload.byteLength === GRANULE ? spoilt(m) : m)],
    ['everything', (m: Message) => (m.type === 'block' ? spoilt(m) : m)],
    [
      'zeros where there are none',
      (m: Message) => (m.type === 'block' ? { ...m, zeros: mask8(1, 3), payload: Buffer.alloc(0) } : m),
    ],
    ['granules that were not asked for', (m: Message) => (m.type === 'block' ? { ...m, zeros: mask8(0, 3) } : m)],
    ['a set of granules that is none', (m: Message) => (m.type === 'block' ? { ...m, zeros: Buffer.alloc(2, 1) } : m)],
  ])('bans a peer that sends wrong %s', async (_, change) => {
    const { blocks, holding, request: wanted } = makeSparse(20)
    // The honest one comes when the liar has been asked.
    net.serve('liar', holding, (message) => {
      if (message.type === 'block') swarm.addPeer('honest')
      return change(message)
    })
    net.serve('honest', holding)
    const swarm = net.swarm('me')
    swarm.addPeer('liar')
    const got = await collect(swarm, wanted)
    for (const { index, data, neighboursWrong } of got) {
      expect(Buffer.compare(data, blocks[index]!)).toBe(0)
      expect(neighboursWrong).toBeUndefined()
    }
    expect(swarm.ledger.isBanned('liar')).toBe(true)
    expect(swarm.ledger.of('honest').bad).toBe(0)
  })

  function spoilt(message: Extract<Message, { type: 'block' }>): Message {
    const payload = Buffer.from(message.payload)
    payload[7] = payload[7]! ^ 1
    return { ...message, payload }
  }

  function mask8(...granules: number[]): Uint8Array {
    return encodeGranules(mask(...granules))
  }
})
