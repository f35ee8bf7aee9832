import { afterEach, describe, expect, it } from 'vitest'
import type { FetchedBlock, FetchRequest } from '../../../../node/exchange/ask/fetch-request.ts'
import type { SwarmOptions } from '../../../../node/exchange/ask/swarm-options.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { codeOf } from '../../../support/error-code.ts'
import { all, Net, never, random, request } from '../../../support/swarm-net.ts'

describe('Swarm over the uplink, for blocks much like those that stand here', () => {
  const net = new Net()
  afterEach(() => net.close())

  const GRANULE = 4096
  const SIZE = 4 * GRANULE
  const COUNT = 10

  /** Blocks of which the disk has the granules 0 and 2, and of which granule 3 is zeros. */
  function makeAlike() {
    const blocks = Array.from({ length: COUNT }, () => {
      const block = random.bytes(SIZE)
      block.fill(0, 3 * GRANULE)
      return block
    })
    const disk = blocks.map((block) => {
      const old = Buffer.from(block)
      for (const i of [1, 3]) old.set(random.bytes(GRANULE), i * GRANULE)
      return old
    })
    const holding = new MemoryHolding(blocks, all(COUNT), SIZE)
    const sparse = {
      granules: () => undefined,
      read: async (index: number) => Buffer.from(disk[index]!),
      isAlike: () => true,
    }
    return { blocks, disk, request: { ...request(holding), blockSize: SIZE, sparse }, holding }
  }

  const fetchFar = async (wanted: FetchRequest, options: Partial<SwarmOptions> = { places: { isFar: () => true } }) => {
    const swarm = net.swarm('me', options)
    swarm.addPeer('peer')
    const got: FetchedBlock[] = []
    for await (const block of swarm.fetch(wanted, never)) got.push(block)
    return { swarm, got: got.toSorted((a, b) => a.index - b.index) }
  }

  it('receives only what differs, and says what that is', async () => {
    const { blocks, holding, request: wanted } = makeAlike()
    net.serve('peer', holding)
    const { got } = await fetchFar(wanted)
    expect(got.map(({ index }) => index)).toEqual([...all(COUNT)])
    for (const { index, data, received, granules } of got) {
      expect(Buffer.compare(data, blocks[index]!)).toBe(0)
      expect([...granules!.values()]).toEqual([1, 3])
      expect(received).toBe(GRANULE)
    }
  })

  it('receives all of a block that is written meanwhile, and blames nobody', async () => {
    const { blocks, disk, holding, request: wanted } = makeAlike()
    net.serve('peer', holding, (message) => {
      for (const block of disk) block.fill(0xee)
      return message
    })
    const read = async (index: number): Promise<Uint8Array> => {
      const here = Buffer.from(disk[index]!)
      disk[index]!.fill(0xee)
      return here
    }
    const { got, swarm } = await fetchFar({ ...wanted, sparse: { ...wanted.sparse, read } })
    for (const { index, data, granules, neighboursWrong } of got) {
      expect(Buffer.compare(data, blocks[index]!)).toBe(0)
      expect([granules, neighboursWrong]).toEqual([undefined, undefined])
    }
    expect(got).toHaveLength(COUNT)
    expect(swarm.ledger.of('peer').bad).toBe(0)
  })

  it('gets everything from a peer that leaves out what it should not', async () => {
    const { blocks, holding, request: wanted } = makeAlike()
    const kept = Buffer.from([0b1111])
    net.serve('peer', holding, (message) =>
      message.type === 'block' && message.kept !== undefined
        ? { ...message, zeros: new Uint8Array(), kept, payload: Buffer.alloc(0) }
        : message,
    )
    const { got } = await fetchFar(wanted)
    for (const { index, data } of got) expect(Buffer.compare(data, blocks[index]!)).toBe(0)
    expect(got).toHaveLength(COUNT)
  })

  it('bans a near peer that leaves something out, which it was not told of', async () => {
    const { holding, request: wanted } = makeAlike()
    net.serve('peer', holding, (message) =>
      message.type === 'block' ? { ...message, kept: Buffer.from([1]) } : message,
    )
    const banned: string[] = []
    const options = { events: { onBan: (peerId: string) => banned.push(peerId) }, deadlines: { peerWaitMs: 2_000 } }
    expect(await codeOf(fetchFar(wanted, options))).toBe('PEERS_UNREACHABLE')
    expect(banned).toEqual(['peer'])
  })
})
