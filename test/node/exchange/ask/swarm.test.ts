import { afterEach, describe, expect, it } from 'vitest'
import type { FetchedBlock, FetchRequest } from '../../../../node/exchange/ask/fetch-request.ts'
import { PAGE_GUESSES } from '../../../../node/exchange/ask/limits.ts'
import { Swarm } from '../../../../node/exchange/ask/swarm.ts'
import type { SwarmOptions } from '../../../../node/exchange/ask/swarm-options.ts'
import { SESSION_CREDIT_BYTES } from '../../../../node/exchange/limits.ts'
import type { LocalFacts } from '../../../../node/exchange/local-facts.ts'
import { ExchangeServer } from '../../../../node/exchange/serve/server.ts'
import type { Holding } from '../../../../node/store/block-source.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import { isMeshError } from '../../../../protocol/errors.ts'
import { encodeGranules } from '../../../../protocol/granules.ts'
import type { Message } from '../../../../protocol/messages.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { type FakeStream, streamPair } from '../../../fakes/frame-stream-pair.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { codeOf } from '../../../support/error-code.ts'
import { testSeed } from '../../../support/seed.ts'

const random = new Random(testSeed('swarm'))
const SITE = Buffer.alloc(32, 1)

function facts(name: string, holdings: readonly Holding[]): LocalFacts {
  const held = holdings.map(({ root, size, blockSize }) => ({ root, size, blockSize }))
  return { siteId: SITE, name, metadata: { root: 1, timestamp: 1 }, addresses: [], held }
}

/** Peers in one process, each with the real server, connected by streams in memory. */
class Net {
  readonly #servers = new Map<string, { server: ExchangeServer; change: (message: Message) => Message | undefined }>()
  readonly #swarms: Swarm[] = []
  /** Server's ends, by name of the server. */
  readonly streams = new Map<string, FakeStream[]>()

  serve(
    name: string,
    holding: Holding,
    change: (message: Message) => Message | undefined = (message) => message,
    local: Partial<LocalFacts> = {},
  ): void {
    const server = new ExchangeServer({
      local: () => ({ ...facts(name, [holding]), ...local }),
      holdings: () => [holding],
      peers: () => [],
    })
    this.#servers.set(name, { server, change })
  }

  swarm(name: string, options: Partial<SwarmOptions> = {}): Swarm {
    const swarm = new Swarm({
      open: async (peerId) => {
        const peer = this.#servers.get(peerId)
        if (peer === undefined) throw new Error('no such peer')
        const [client, server] = streamPair(name, peerId)
        this.streams.set(peerId, [...(this.streams.get(peerId) ?? []), server])
        const send = server.send.bind(server)
        server.send = async (message) => {
          const changed = peer.change(message)
          if (changed !== undefined) await send(changed)
        }
        peer.server.serve(server).then(
          () => server.close(),
          (error: Error) => server.abort(error),
        )
        return client
      },
      self: name,
      local: () => facts(name, []),
      random: () => random.next(),
      peerWaitMs: 2_000,
      holderWaitMs: 2_000,
      progressDeadlineMs: 250,
      stallDisconnectMs: 600,
      ...options,
    })
    this.#swarms.push(swarm)
    return swarm
  }

  close(): void {
    for (const swarm of this.#swarms) swarm.close()
  }
}

function makeBlocks(count: number): Uint8Array[] {
  return Array.from({ length: count }, () => random.bytes(4096))
}

const all = (count: number): Iterable<number> => Array(count).keys()

function request(holding: MemoryHolding, wanted: Iterable<number> = all(holding.blocks.length)) {
  const bitmap = new Bitmap(holding.blocks.length)
  for (const index of wanted) bitmap.set(index)
  const digest = async (index: number) => digestOf(holding.blocks[index]!)
  return { root: holding.root, level: 0, blockSize: 4096, wanted: bitmap, digestOf: digest }
}

const never = new AbortController().signal

/** Fetches everything and checks that each block came once and is right. */
async function fetchAll(
  swarm: Swarm,
  holding: MemoryHolding,
  took: (index: number) => void = () => undefined,
): Promise<Map<number, string>> {
  const got = new Map<number, string>()
  for await (const { index, data, peerId } of swarm.fetch(request(holding), never)) {
    expect(got.has(index)).toBe(false)
    expect(Buffer.compare(data, holding.blocks[index]!)).toBe(0)
    got.set(index, peerId)
    took(index)
  }
  expect(got.size).toBe(holding.blocks.length)
  return got
}

describe('Swarm', () => {
  let net = new Net()
  afterEach(() => {
    net.close()
    net = new Net()
  })

  it('fetches everything once from whoever has it', async () => {
    const blocks = makeBlocks(300)
    const half = (rest: number): number[] => [...all(300)].filter((i) => i % 2 === rest)
    net.serve('even', new MemoryHolding(blocks, half(0)))
    net.serve('odd', new MemoryHolding(blocks, half(1)))
    const swarm = net.swarm('me')
    swarm.addPeer('even')
    swarm.addPeer('odd')
    const got = await fetchAll(swarm, new MemoryHolding(blocks, []))
    for (const [index, peerId] of got) expect(peerId).toBe(index % 2 === 0 ? 'even' : 'odd')
    expect(swarm.ledger.of('even')).toMatchObject({ blocks: 150, bytes: 150 * 4096, bad: 0 })
  })

  it('bans a peer at its first wrong block and fetches the rest elsewhere', async () => {
    const blocks = makeBlocks(200)
    const source = new MemoryHolding(blocks, all(200))
    net.serve('honest', source)
    net.serve('liar', new MemoryHolding(blocks, all(200)), (message) => {
      return message.type === 'block' ? { ...message, payload: new Uint8Array(4096) } : message
    })
    const banned: string[] = []
    const swarm = net.swarm('me', { onBan: (peerId, reason) => banned.push(`${peerId} ${reason}`) })
    swarm.addPeer('liar')
    setTimeout(() => swarm.addPeer('honest'), 50)
    const got = await fetchAll(swarm, source)
    expect(new Set(got.values())).toEqual(new Set(['honest']))
    expect(swarm.ledger.of('liar').bad).toBeGreaterThan(0)
    expect(banned).toHaveLength(1)
    expect(banned[0]).toMatch(/^liar sent wrong bytes for block \d+$/)
    swarm.addPeer('liar')
    expect(swarm.peers().map(({ id }) => id)).toEqual(['honest'])
  })

  it('takes back what a silent peer was asked for, and takes its late answer all the same', async () => {
    const blocks = makeBlocks(100)
    const [slow, fast] = [new MemoryHolding(blocks, all(100)), new MemoryHolding(blocks, all(100))]
    net.serve('slow', slow, (message) => (message.type === 'block' ? undefined : message))
    net.serve('fast', fast)
    const swarm = net.swarm('me')
    swarm.addPeer('slow')
    // Everything is asked of the slow one before the fast one comes.
    setTimeout(() => swarm.addPeer('fast'), 100)
    const got = await fetchAll(swarm, fast)
    expect(new Set(got.values())).toEqual(new Set(['fast']))
    expect(swarm.ledger.of('slow').stalls).toBe(1)
  })

  it('drops a peer that stays silent, comes back to it, and goes on when it answers again', async () => {
    const blocks = makeBlocks(50)
    let mute = true
    const source = new MemoryHolding(blocks, all(50))
    net.serve('sleepy', source, (message) => (message.type === 'block' && mute ? undefined : message))
    const swarm = net.swarm('me', { peerWaitMs: 5_000 })
    swarm.addPeer('sleepy')
    setTimeout(() => {
      mute = false
    }, 400)
    await fetchAll(swarm, source)
    expect(net.streams.get('sleepy')?.length).toBeGreaterThan(1)
  })

  it('goes on with others when a peer leaves, and with one that comes late', async () => {
    const blocks = makeBlocks(200)
    const source = new MemoryHolding(blocks, all(200))
    let count = 0
    net.serve('first', source, (message) => {
      if (message.type === 'block' && ++count === 20) setImmediate(() => swarm.removePeer('first'))
      return message
    })
    net.serve('second', source)
    const swarm = net.swarm('me')
    swarm.addPeer('first')
    setTimeout(() => swarm.addPeer('second'), 150)
    const got = await fetchAll(swarm, source)
    expect(new Set(got.values())).toEqual(new Set(['first', 'second']))
  })

  it('believes "missing" and asks somebody else', async () => {
    const blocks = makeBlocks(60)
    const hollow = new MemoryHolding(blocks, all(60))
    hollow.get = async () => undefined
    net.serve('hollow', hollow)
    net.serve('whole', new MemoryHolding(blocks, all(60)))
    const swarm = net.swarm('me')
    swarm.addPeer('hollow')
    swarm.addPeer('whole')
    const got = await fetchAll(swarm, hollow)
    expect(new Set(got.values())).toEqual(new Set(['whole']))
    expect(swarm.ledger.isBanned('hollow')).toBe(false)
  })

  it('says which blocks nobody holds, after delivering the others', async () => {
    const blocks = makeBlocks(40)
    const source = new MemoryHolding(
      blocks,
      [...all(40)].filter((i) => i < 17 || i > 36),
    )
    net.serve('peer', source)
    const swarm = net.swarm('me')
    swarm.addPeer('peer')
    const got: number[] = []
    const run = async (): Promise<void> => {
      for await (const { index } of swarm.fetch(request(source), never)) got.push(index)
    }
    const error: unknown = await run().catch((reason: unknown) => reason)
    expect(got).toHaveLength(20)
    if (!isMeshError(error, 'BLOCKS_UNAVAILABLE')) throw error
    expect(error.detail).toMatchObject({ level: 0, count: 20, blocks: [...all(40)].slice(17, 33) })
    expect(error.message).toMatch(/17, 18, .* and 4 more/)
  })

  it('gets what a peer with another image has of this one, wherever it stands there', async () => {
    const blocks = makeBlocks(2500)
    // A release before: one block in front, every fifth another, and the end not yet written.
    const older = [makeBlocks(1)[0]!, ...blocks.map((block, i) => (i % 5 === 0 ? makeBlocks(1)[0]! : block))]
    const had = new MemoryHolding(older, [...all(2400)])
    const source = new MemoryHolding(blocks, all(2500))
    net.serve('neighbour', had)
    net.serve('master', source)
    const common = [...all(2399)].filter((index) => index % 5 !== 0)
    const swarm = net.swarm('me', { holderWaitMs: 30_000 })
    swarm.addPeer('neighbour')
    // The master comes when nothing more can be had from the neighbour.
    const got = await fetchAll(swarm, source, () => {
      if (swarm.ledger.of('neighbour').blocks === common.length) swarm.addPeer('master')
    })
    const from = (peer: string): number[] => [...got].flatMap(([index, peerId]) => (peerId === peer ? [index] : []))
    expect(from('neighbour').sort((a, b) => a - b)).toEqual(common)
    expect(swarm.ledger.of('neighbour').bad + swarm.ledger.of('master').bad).toBe(0)
  })

  it('believes a peer that found something no more than any other', async () => {
    const blocks = makeBlocks(40)
    const source = new MemoryHolding(blocks, all(40))
    net.serve('boaster', new MemoryHolding(makeBlocks(3), all(3)), (message) =>
      message.type === 'found' ? { ...message, found: Buffer.alloc(5, 255) } : message,
    )
    net.serve('honest', source)
    const swarm = net.swarm('me')
    swarm.addPeer('boaster')
    swarm.addPeer('honest')
    for (const peerId of (await fetchAll(swarm, source)).values()) expect(peerId).toBe('honest')
  })

  it('waits for a block that a peer gains meanwhile', async () => {
    const blocks = makeBlocks(20)
    const source = new MemoryHolding(blocks, [...all(20)].slice(1))
    net.serve('peer', source)
    const swarm = net.swarm('me')
    swarm.addPeer('peer')
    setTimeout(() => source.gain(0), 150)
    await fetchAll(swarm, source)
  })

  it('gives up when no peer comes, and at once when it is aborted', async () => {
    const source = new MemoryHolding(makeBlocks(3), [])
    const drain = async (swarm: Swarm, signal: AbortSignal): Promise<void> => {
      for await (const _ of swarm.fetch(request(source), signal)) throw new Error('nothing can come')
    }
    expect(await codeOf(drain(net.swarm('me'), never))).toBe('PEERS_UNREACHABLE')
    const stop = new AbortController()
    setTimeout(() => stop.abort(), 20)
    expect(await codeOf(drain(net.swarm('me', { peerWaitMs: 60_000 }), stop.signal))).toBe('INTERRUPTED')
  })

  it('asks for no more than its window while the consumer takes nothing', async () => {
    const blocks = makeBlocks(3000)
    const source = new MemoryHolding(blocks, all(3000))
    net.serve('peer', source)
    const swarm = net.swarm('me')
    swarm.addPeer('peer')
    const fetching = swarm.fetch(request(source), never)
    await fetching.next()
    await new Promise((resolve) => setTimeout(resolve, 300))
    // 8 MiB of credit and 32 MiB of window, in blocks of 4 KiB.
    expect(source.served.size).toBeLessThanOrEqual(1 + (40 * 1024 * 1024) / 4096)
    await fetching.return(undefined)
    const served = source.served.size
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(source.served.size).toBe(served)
  })

  it('cuts off peers that break the protocol, and refuses other sites and versions', async () => {
    const blocks = makeBlocks(10)
    const source = new MemoryHolding(blocks, all(10))
    const bad: [string, (message: Message) => Message, Partial<LocalFacts>][] = [
      ['unasked', (m) => (m.type === 'block' ? { ...m, id: m.id + 5000 } : m), {}],
      ['oversized', (m) => (m.type === 'block' ? { ...m, payload: new Uint8Array(8192) } : m), {}],
      ['rude', (m) => (m.type === 'hello' ? { type: 'announce', metadata: { root: 1, timestamp: 1 } } : m), {}],
      ['foreign', (m) => m, { siteId: Buffer.alloc(32, 2) }],
      ['future', (m) => (m.type === 'hello' ? { ...m, versionMin: 7, versionMax: 9 } : m), {}],
      ['confused', (m) => (m.type === 'block' ? { type: 'want', requests: [], packFrom: 0 } : m), {}],
    ]
    for (const [name, change, local] of bad) net.serve(name, source, change, local)
    net.serve('good', source)
    const banned: string[] = []
    const swarm = net.swarm('me', { onBan: (peerId) => banned.push(peerId) })
    for (const [name] of bad) swarm.addPeer(name)
    setTimeout(() => swarm.addPeer('good'), 200)
    const got = await fetchAll(swarm, source)
    expect(new Set(got.values())).toEqual(new Set(['good']))
    // The foreign peer's server refuses us first, so it only seems to be gone.
    expect(banned.toSorted()).toEqual(['confused', 'future', 'oversized', 'rude', 'unasked'])
  })

  describe('for pages of a tree', () => {
    const COUNT = 400

    it('asks near peers with other images, and far ones only for what those do not have', async () => {
      const pages = new MemoryHolding(makeBlocks(COUNT), all(COUNT))
      const older = new MemoryHolding(
        pages.blocks.map((page, i) => (i % 10 === 9 ? random.bytes(4096) : page)),
        all(COUNT),
      )
      net.serve('near', older)
      net.serve('far', pages)
      const swarm = net.swarm('me', { isFar: (peerId) => peerId === 'far' })
      for (const peer of ['near', 'far']) swarm.addPeer(peer)
      const from = new Map<string, number>()
      for await (const { index, data, peerId } of swarm.fetch({ ...request(pages), level: 1 }, never)) {
        expect(Buffer.compare(data, pages.blocks[index]!)).toBe(0)
        from.set(peerId, (from.get(peerId) ?? 0) + 1)
      }
      expect(Object.fromEntries(from)).toEqual({ near: (COUNT * 9) / 10, far: COUNT / 10 })
    })

    it('does not go on asking a peer that has none of them', async () => {
      const pages = new MemoryHolding(makeBlocks(COUNT), all(COUNT))
      let missing = 0
      net.serve('stranger', new MemoryHolding(makeBlocks(COUNT), all(COUNT)), (message) => {
        if (message.type === 'missing') missing += message.ids.length
        return message
      })
      net.serve('holder', pages)
      const swarm = net.swarm('me', { isFar: (peerId) => peerId === 'holder' })
      for (const peer of ['stranger', 'holder']) swarm.addPeer(peer)
      let got = 0
      for await (const { peerId } of swarm.fetch({ ...request(pages), level: 1 }, never)) {
        expect(peerId).toBe('holder')
        got++
      }
      expect(got).toBe(COUNT)
      expect(missing).toBeGreaterThanOrEqual(PAGE_GUESSES)
      expect(missing).toBeLessThan(COUNT / 2)
    })
  })

  describe('over the uplink, for blocks much like those that stand here', () => {
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

    const fetchFar = async (wanted: FetchRequest, options: Partial<SwarmOptions> = { isFar: () => true }) => {
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
      const options = { onBan: (peerId: string) => banned.push(peerId) }
      expect(await codeOf(fetchFar(wanted, options))).toBe('PEERS_UNREACHABLE')
      expect(banned).toEqual(['peer'])
    })
  })

  describe('asked for some granules of blocks', () => {
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
      [
        'a set of granules that is none',
        (m: Message) => (m.type === 'block' ? { ...m, zeros: Buffer.alloc(2, 1) } : m),
      ],
    ])('bans a peer that sends wrong %s', async (_, change) => {
      const { blocks, holding, request: wanted } = makeSparse(20)
      net.serve('liar', holding, change)
      net.serve('honest', holding)
      const swarm = net.swarm('me')
      swarm.addPeer('liar')
      setTimeout(() => swarm.addPeer('honest'), 50)
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

  it('lets four empty machines get most of an image from each other', async () => {
    const blocks = makeBlocks(6000)
    const source = new MemoryHolding(blocks, all(6000))
    net.serve('master', source)
    const machines = ['a', 'b', 'c', 'd'].map((name) => {
      const holding = new MemoryHolding(blocks, [])
      net.serve(name, holding)
      return { name, holding, swarm: net.swarm(name) }
    })
    for (const { name, swarm } of machines) {
      for (const peer of ['master', ...machines.map((machine) => machine.name)]) if (peer !== name) swarm.addPeer(peer)
    }
    await Promise.all(machines.map(({ swarm, holding }) => fetchAll(swarm, holding, (index) => holding.gain(index))))
    const fromMaster = [...source.served.values()].reduce((sum, count) => sum + count, 0)
    console.log(`the master served ${(fromMaster / 6000).toFixed(2)} times the image to 4 machines`)
    expect(fromMaster).toBeLessThan(6000 * 3)
    expect(fromMaster).toBeGreaterThanOrEqual(6000)
  })
})

describe('ExchangeServer', () => {
  const blocks = makeBlocks(4)
  const holding = new MemoryHolding(blocks, all(4))
  const server = new ExchangeServer({
    local: () => facts('server', [holding]),
    holdings: () => [holding],
    peers: () => [],
  })
  const hello: Message = { type: 'hello', versionMin: 2, versionMax: 2, creditBytes: 1, ...facts('client', []) }

  it('answers busy beyond the credit, and missing for what is not there', async () => {
    const [client, end] = streamPair('client', 'server')
    void server.serve(end).catch(() => undefined)
    await client.send(hello)
    const requests = Array.from({ length: SESSION_CREDIT_BYTES / 4096 + 10 }, (_, id) => ({
      id,
      digest: digestOf(blocks[id % 4]!),
      level: 0,
      index: id % 4,
      size: 4096,
      granules: new Uint8Array(),
    }))
    requests[0]!.digest = Buffer.alloc(32, 9)
    await client.send({ type: 'want', requests, packFrom: 0 })
    const counts: Record<string, number> = {}
    for await (const message of client.messages()) {
      const ids = 'ids' in message ? message.ids.length : 1
      counts[message.type] = (counts[message.type] ?? 0) + ids
      if ((counts.block ?? 0) + (counts.missing ?? 0) + (counts.busy ?? 0) === requests.length) break
    }
    expect(counts).toMatchObject({ busy: 10, missing: 1, block: requests.length - 11, hello: 1 })
  })

  it('does not wait for ever for a client that says nothing', async () => {
    const [, end] = streamPair('client', 'server')
    expect(await codeOf(server.serve(end))).toBe('REQUEST_TIMEOUT')
  })

  it('ends the stream of a client that does not begin with hello, or sends what only servers send', async () => {
    for (const opening of [
      [{ type: 'want', requests: [], packFrom: 0 }],
      [hello, { type: 'missing', ids: [1] }],
    ] as Message[][]) {
      const [client, end] = streamPair('client', 'server')
      const serving = codeOf(server.serve(end))
      for (const message of opening) await client.send(message)
      expect(await serving).toBe('PROTOCOL_VIOLATION')
    }
  })
})
