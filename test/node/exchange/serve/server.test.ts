import { describe, expect, it, onTestFinished } from 'vitest'
import type { LocalFacts } from '../../../../node/exchange/local-facts.ts'
import { SERVE_BUFFER_BYTES, SERVE_PORTION_BYTES, SERVE_TURN_BYTES } from '../../../../node/exchange/serve/limits.ts'
import type { ServeLimits } from '../../../../node/exchange/serve/serve-pace.ts'
import { ExchangeServer } from '../../../../node/exchange/serve/server.ts'
import type { ContentRequest, Holding } from '../../../../node/store/block-source.ts'
import { GRANULE_SIZE_BYTES } from '../../../../protocol/constants.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import type { Message } from '../../../../protocol/messages.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { type FakeStream, streamPair } from '../../../fakes/frame-stream-pair.ts'
import { MemoryHolding } from '../../../fakes/memory-holding.ts'
import { testSeed } from '../../../support/seed.ts'

const random = new Random(testSeed('server'))
const BLOCK = 64 * 1024
const BLOCKS = 64
const blocks = Array.from({ length: BLOCKS }, () => Buffer.from(random.bytes(BLOCK)))
const digests = blocks.map((block) => digestOf(block))
const facts: LocalFacts = {
  siteId: Buffer.alloc(32, 1),
  name: 'server',
  metadata: { root: 1, timestamp: 1 },
  addresses: [],
  held: [],
}

/** Remembers what was asked of it at a time. */
class CountingHolding extends MemoryHolding {
  readonly batches: (readonly ContentRequest[])[] = []

  override getMany(...[requests, deliver]: Parameters<Holding['getMany']>): Promise<void> {
    this.batches.push(requests)
    return super.getMany(requests, deliver)
  }
}

function makeServer(limits: ServeLimits = {}): { server: ExchangeServer; holding: CountingHolding } {
  const holding = new CountingHolding(blocks, blocks.keys(), BLOCK)
  const server = new ExchangeServer({ local: () => facts, holdings: () => [holding], peers: () => [], limits })
  onTestFinished(() => server.close())
  return { server, holding }
}

/** A client that says hello and takes down what comes; `stuck`: its stream takes one answer and then no more. */
class Client {
  readonly #stream: FakeStream
  readonly name: string
  /** Ids in the order of their answers. */
  readonly answered: number[] = []
  readonly busy: { ids: readonly number[]; retryAfterMs: number }[] = []
  bytes = 0
  #next = 0
  #free: (() => void) | undefined
  #wake: (() => void) | undefined

  constructor(server: ExchangeServer, name: string, options: { stuck?: boolean } = {}) {
    this.name = name
    const [client, end] = streamPair(name, 'server')
    this.#stream = client
    if (options.stuck === true) {
      const send = end.send.bind(end)
      const free = new Promise<void>((resolve) => {
        this.#free = resolve
      })
      end.send = async (message) => {
        await send(message)
        if (message.type === 'block') await free
      }
    }
    server.serve(end).catch(() => undefined)
    onTestFinished(() => client.close())
    void client.send({ type: 'hello', versionMin: 2, versionMax: 2, creditBytes: 1, ...facts, name })
    void this.#read()
  }

  /** Asks for `count` blocks, or for one granule of each. */
  want(count: number, granule = false): number[] {
    const ids = Array.from({ length: count }, () => this.#next++)
    const requests = ids.map((id) => ({
      id,
      digest: digests[id % BLOCKS]!,
      level: 0,
      index: id % BLOCKS,
      size: BLOCK,
      granules: granule ? Uint8Array.of(0, 1) : new Uint8Array(),
    }))
    void this.#stream.send({ type: 'want', packFrom: 0, requests })
    return ids
  }

  cancel(ids: readonly number[]): void {
    void this.#stream.send({ type: 'cancel', ids })
  }

  /** From now on its stream takes everything. */
  free(): void {
    this.#free?.()
  }

  leave(): Promise<void> {
    return this.#stream.close()
  }

  async until(done: () => boolean): Promise<void> {
    while (!done())
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
  }

  async #read(): Promise<void> {
    for await (const message of this.#stream.messages()) {
      this.#take(message)
      this.#wake?.()
    }
  }

  #take(message: Message): void {
    if (message.type === 'busy') this.busy.push(message)
    if (message.type !== 'block') return
    this.answered.push(message.id)
    this.bytes += message.payload.byteLength
  }
}

const turns = async (count: number): Promise<void> => {
  for (let n = 0; n < count; n++) await new Promise((resolve) => setImmediate(resolve))
}

describe('ExchangeServer, with many clients', () => {
  it('answers a burst of small requests of many clients by few sweeps', async () => {
    const { server, holding } = makeServer()
    const clients = Array.from({ length: 8 }, (_, i) => new Client(server, `client ${i}`))
    await turns(10)
    for (const client of clients) client.want(250, true)
    await Promise.all(clients.map((client) => client.until(() => client.answered.length === 250)))
    for (const client of clients) expect(client.bytes).toBe(250 * GRANULE_SIZE_BYTES)
    expect(holding.batches.length).toBeLessThanOrEqual((2 * 2000 * BLOCK) / SERVE_TURN_BYTES)
    // Each sweep is for all of them.
    expect(holding.batches[0]!.length).toBe(SERVE_TURN_BYTES / BLOCK)
  })

  it('does not let one with many large requests delay one with few small ones', async () => {
    const { server } = makeServer()
    const [greedy, modest] = [new Client(server, 'greedy'), new Client(server, 'modest')]
    await turns(10)
    greedy.want(128)
    await greedy.until(() => greedy.answered.length > 0)
    modest.want(8, true)
    await modest.until(() => modest.answered.length === 8)
    expect(greedy.answered.length).toBeLessThan(64)
    await greedy.until(() => greedy.answered.length === 128)
  })

  it('reads no more than a portion for a client that takes nothing, and serves the others meanwhile', async () => {
    const { server, holding } = makeServer()
    const stuck = Array.from({ length: 6 }, (_, i) => new Client(server, `stuck ${i}`, { stuck: true }))
    const lively = new Client(server, 'lively')
    await turns(10)
    for (const client of stuck) client.want(100)
    lively.want(100)
    await lively.until(() => lively.answered.length === 100)
    await turns(50)
    for (const client of stuck) {
      expect(client.bytes).toBeGreaterThan(0)
      expect(client.bytes).toBeLessThanOrEqual(SERVE_PORTION_BYTES)
    }
    const asked = holding.batches.flat().length
    expect(asked * BLOCK).toBeLessThanOrEqual(100 * BLOCK + 6 * SERVE_PORTION_BYTES)
    expect(server.figures()).toMatchObject({ clients: 6, waiting: 0 })
    for (const client of stuck) client.free()
    for (const client of stuck) await client.until(() => client.answered.length === 100)
    await turns(10)
    expect(server.figures()).toMatchObject({ clients: 0, bytes: 700 * BLOCK })
  })

  it('keeps the memory of all clients together within its bound', async () => {
    const { server, holding } = makeServer()
    const count = 120
    const stuck = Array.from({ length: count }, (_, i) => new Client(server, `stuck ${i}`, { stuck: true }))
    await turns(10)
    for (const client of stuck) client.want(20)
    await turns(300)
    const read = holding.batches.flat().length * BLOCK
    expect(read).toBeLessThanOrEqual(SERVE_BUFFER_BYTES + BLOCK)
    // Nobody is left out, though all are slow.
    for (const client of stuck) expect(client.bytes).toBeGreaterThan(0)
    for (const client of stuck) client.free()
    for (const client of stuck) await client.until(() => client.answered.length === 20)
  })

  it('answers neither what was cancelled nor whom has gone', async () => {
    const { server, holding } = makeServer()
    const [client, gone] = [new Client(server, 'client', { stuck: true }), new Client(server, 'gone', { stuck: true })]
    await turns(10)
    const ids = client.want(50)
    gone.want(50)
    await client.until(() => client.answered.length === 4)
    await gone.leave()
    client.cancel(ids.slice(25))
    await turns(20)
    client.free()
    gone.free()
    await client.until(() => client.answered.length === 25)
    await turns(20)
    expect(client.answered).toEqual(ids.slice(0, 25))
    expect(holding.batches.flat()).toHaveLength(25 + 4)
    expect(server.figures().clients).toBe(0)
  })

  it('serves so many at a time, and tells the others when to ask again', async () => {
    const { server } = makeServer({ peers: 1 })
    const [first, second] = [new Client(server, 'first', { stuck: true }), new Client(server, 'second')]
    await turns(10)
    first.want(30)
    await first.until(() => first.answered.length > 0)
    const ids = second.want(10)
    await second.until(() => second.busy.length > 0)
    expect(second.busy[0]!.ids).toEqual(ids)
    expect(second.busy[0]!.retryAfterMs).toBeGreaterThan(0)
    expect(second.answered).toEqual([])
    expect(server.figures()).toMatchObject({ clients: 1, waiting: 1 })
    await first.leave()
    first.free()
    await turns(20)
    second.want(10)
    await second.until(() => second.answered.length === 10)
    expect(server.figures().waiting).toBe(0)
  })

  it('reads no more wants of a client that does not take what it is refused', async () => {
    const { server } = makeServer({ peers: 1 })
    const first = new Client(server, 'first', { stuck: true })
    await turns(10)
    first.want(30)
    await first.until(() => first.answered.length > 0)
    const [client, end] = streamPair('second', 'server')
    onTestFinished(() => client.close())
    const send = end.send.bind(end)
    const free = Promise.withResolvers<void>()
    let refusals = 0
    end.send = async (message) => {
      if (message.type === 'busy') {
        refusals++
        await free.promise
      }
      await send(message)
    }
    server.serve(end).catch(() => undefined)
    await client.send({ type: 'hello', versionMin: 2, versionMax: 2, creditBytes: 1, ...facts })
    const request = { digest: digests[0]!, level: 0, index: 0, size: BLOCK, granules: new Uint8Array() }
    for (let id = 1; id <= 20; id++) await client.send({ type: 'want', packFrom: 0, requests: [{ id, ...request }] })
    await turns(20)
    expect(refusals).toBe(1)
    free.resolve()
    await turns(40)
    expect(refusals).toBe(20)
  })

  it('takes on no more than a limited rate sends in time, and says why it waits', async () => {
    const { server } = makeServer({ bytesPerSecond: 1024 * 1024 })
    const client = new Client(server, 'client')
    await turns(10)
    client.want(64)
    await client.until(() => client.busy.length > 0)
    // A second's worth, and what the burst had let through before.
    const refused = client.busy.flatMap(({ ids }) => ids).length
    expect(refused).toBe(64 - 16)
    expect(client.busy[0]!.retryAfterMs).toBeGreaterThanOrEqual(500)
    await client.until(() => client.answered.length > 0)
    await turns(5)
    expect(server.figures()).toMatchObject({ clients: 1, capped: 'rate' })
    // Without the limit the rest comes at once.
    server.limit({})
    await client.until(() => client.answered.length === 16)
    await turns(5)
    expect(server.figures().capped).toBeUndefined()
  })
})
