import { afterEach, describe, expect, it } from 'vitest'
import type { Swarm } from '../../../../node/exchange/ask/swarm.ts'
import type { LocalFacts } from '../../../../node/exchange/local-facts.ts'
import { isMeshError } from '../../../../protocol/errors.ts'
import type { Message } from '../../../../protocol/messages.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { codeOf } from '../../../support/error-code.ts'
import { all, fetchAll, makeBlocks, Net, never, request } from '../../../support/swarm-net.ts'

describe('Swarm', () => {
  const net = new Net()
  afterEach(() => net.close())

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
    const onBan = (peerId: string, reason: string): void => {
      banned.push(`${peerId} ${reason}`)
      swarm.addPeer('honest')
    }
    const swarm = net.swarm('me', { events: { onBan } })
    swarm.addPeer('liar')
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
    net.serve('slow', slow, (message) => {
      if (message.type !== 'block') return message
      // The fast one comes when the slow one has been asked.
      swarm.addPeer('fast')
      return undefined
    })
    net.serve('fast', fast)
    const swarm = net.swarm('me', { deadlines: { progressDeadlineMs: 250 } })
    swarm.addPeer('slow')
    const got = await fetchAll(swarm, fast)
    expect(new Set(got.values())).toEqual(new Set(['fast']))
    expect(swarm.ledger.times('slow', 'silent')).toBe(1)
  })

  it('drops a peer that stays silent, comes back to it, and goes on when it answers again', async () => {
    const blocks = makeBlocks(50)
    let mute = true
    const source = new MemoryHolding(blocks, all(50))
    net.serve('sleepy', source, (message) => (message.type === 'block' && mute ? undefined : message))
    const swarm = net.swarm('me', { deadlines: { progressDeadlineMs: 250, stallDisconnectMs: 600 } })
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
      if (message.type === 'block' && ++count === 20)
        setImmediate(() => {
          swarm.removePeer('first')
          swarm.addPeer('second')
        })
      return message
    })
    net.serve('second', source)
    const swarm = net.swarm('me')
    swarm.addPeer('first')
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
    const swarm = net.swarm('me', { deadlines: { holderWaitMs: 2_000 } })
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
    const swarm = net.swarm('me')
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
    expect(await codeOf(drain(net.swarm('me', { deadlines: { peerWaitMs: 500 } }), never))).toBe('PEERS_UNREACHABLE')
    const stop = new AbortController()
    setTimeout(() => stop.abort(), 20)
    expect(await codeOf(drain(net.swarm('me'), stop.signal))).toBe('INTERRUPTED')
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
    // The good one comes when the others are cut off.
    const onBan = (peerId: string): void => {
      if (banned.push(peerId) === bad.length - 1) swarm.addPeer('good')
    }
    const swarm = net.swarm('me', { events: { onBan } })
    for (const [name] of bad) swarm.addPeer(name)
    const got = await fetchAll(swarm, source)
    expect(new Set(got.values())).toEqual(new Set(['good']))
    // The foreign peer's server refuses us first, so it only seems to be gone.
    expect(banned.toSorted()).toEqual(['confused', 'future', 'oversized', 'rude', 'unasked'])
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
