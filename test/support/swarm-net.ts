import { expect } from 'vitest'
import { Swarm } from '../../node/exchange/ask/swarm.ts'
import type { SwarmOptions } from '../../node/exchange/ask/swarm-options.ts'
import type { LocalFacts } from '../../node/exchange/local-facts.ts'
import { ExchangeServer } from '../../node/exchange/serve/server.ts'
import type { Holding } from '../../node/store/block-source.ts'
import { Bitmap } from '../../protocol/bitmap.ts'
import { digestOf, toHex } from '../../protocol/digest.ts'
import type { Message } from '../../protocol/messages.ts'
import { Random } from '../../tools/lab/random.ts'
import { type FakeStream, streamPair } from '../fakes/frame-stream-pair.ts'
import type { MemoryHolding } from '../fakes/memory-holding.ts'
import { testSeed } from './seed.ts'

/** Seeded once for each test file. */
export const random = new Random(testSeed('swarm'))
const SITE = Buffer.alloc(32, 1)
/** For deadlines that must not pass, however slow the computer is. */
const PATIENT_MS = 600_000

export function facts(name: string, holdings: readonly Holding[]): LocalFacts {
  const held = holdings.map(({ root, size, blockSize }) => ({ root, size, blockSize }))
  return { siteId: SITE, name, metadata: { root: 1, timestamp: 1 }, addresses: [], held }
}

/** Peers in one process, each with the real server, connected by streams in memory. */
export class Net {
  readonly #servers = new Map<string, { server: ExchangeServer; change: (message: Message) => Message | undefined }>()
  /** What is signed of the images that are served, by root. */
  readonly #images = new Map<string, Holding>()
  readonly #swarms: Swarm[] = []
  /** Server's ends, by name of the server. */
  readonly streams = new Map<string, FakeStream[]>()

  serve(
    name: string,
    holding: Holding,
    change: (message: Message) => Message | undefined = (message) => message,
    local: Partial<LocalFacts> = {},
  ): void {
    this.#images.set(toHex(holding.root), holding)
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
      imageOf: (root) => this.#images.get(root),
      random: () => random.next(),
      ...options,
      deadlines: {
        peerWaitMs: PATIENT_MS,
        holderWaitMs: PATIENT_MS,
        progressDeadlineMs: PATIENT_MS,
        stallDisconnectMs: PATIENT_MS,
        ...options.deadlines,
      },
    })
    this.#swarms.push(swarm)
    return swarm
  }

  /** Ends all swarms and forgets all peers; the next test begins anew. */
  close(): void {
    for (const swarm of this.#swarms.splice(0)) swarm.close()
    this.#servers.clear()
    this.streams.clear()
  }
}

export function makeBlocks(count: number): Uint8Array[] {
  return Array.from({ length: count }, () => random.bytes(4096))
}

export const all = (count: number): Iterable<number> => Array(count).keys()

export function request(holding: MemoryHolding, wanted: Iterable<number> = all(holding.blocks.length)) {
  const bitmap = new Bitmap(holding.blocks.length)
  for (const index of wanted) bitmap.set(index)
  const digest = async (index: number) => digestOf(holding.blocks[index]!)
  return { root: holding.root, level: 0, blockSize: 4096, wanted: bitmap, digestOf: digest }
}

export const never = new AbortController().signal

/** Fetches everything and checks that each block came once and is right. */
export async function fetchAll(
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
