import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'
import type { Lab } from '../lab/local-lab.ts'
import { NODE_FLAGS } from '../lab/node-flags.ts'
import type { Figure } from './benches.ts'
import type { Job } from './transport-peer.ts'

const MIB = 1024 ** 2
const ROUNDS = 7
const SIDES = {
  stock: { name: 'libp2p as it comes', peer: 'stock', flags: [] },
  // This side shows how much of the gain comes from Node's flags alone.
  flags: { name: "libp2p, with the mesh's flags of Node", peer: 'stock', flags: NODE_FLAGS },
  mesh: { name: 'the mesh', peer: 'mesh', flags: NODE_FLAGS },
} as const
const KINDS = ['stock', 'flags', 'mesh'] as const
const WORKLOADS = [
  { what: '64 KiB payloads, one request', how: 'bulk', size: 64 * 1024, share: 1 },
  { what: '4 KiB payloads, a request each', how: 'small', size: 4 * 1024, share: 1 / 8 },
] as const

type Kind = (typeof KINDS)[number]
interface Round {
  readonly seconds: number
  readonly cpuSeconds: number
}

/**
 * Measures one stream of one connection over loopback between two processes. Libp2p's own settings and ours take turns.
 */
export async function benchTransport(_lab: Lab, size: number): Promise<Figure[]> {
  const pairs: [Kind, Pair][] = []
  try {
    for (const kind of KINDS) pairs.push([kind, await Pair.open(kind)])
    const figures: Figure[] = []
    for (const { what, how, size: payload, share } of WORKLOADS) {
      const bytes = Math.ceil((size * share) / payload) * payload
      const job = { do: how, count: bytes / payload, size: payload } as const
      const rounds: Record<Kind, Round[]> = { stock: [], flags: [], mesh: [] }
      // The first round is not measured: V8 compiles the code in it.
      for (const [, pair] of pairs) await pair.run(job)
      for (let round = 0; round < ROUNDS; round++) {
        for (const [kind, pair] of pairs) rounds[kind].push(await pair.run(job))
      }
      const of = (kind: Kind, key: keyof Round): number => median(rounds[kind].map((round) => round[key]))
      for (const kind of KINDS) {
        const seconds = of(kind, 'seconds')
        figures.push({
          what: `${what}: ${SIDES[kind].name}`,
          seconds,
          mibPerSecond: bytes / MIB / seconds,
          cpuSeconds: of(kind, 'cpuSeconds'),
          ...(kind === 'stock' ? {} : { ratio: of('stock', 'seconds') / seconds }),
        })
      }
    }
    return figures
  } finally {
    for (const [, pair] of pairs) pair.stop()
  }
}

/** Two processes that are connected. */
class Pair {
  readonly #server: ChildProcess
  readonly #client: ChildProcess

  private constructor(server: ChildProcess, client: ChildProcess) {
    this.#server = server
    this.#client = client
  }

  static async open(kind: Kind): Promise<Pair> {
    const [server, client] = [start(kind), start(kind)]
    try {
      const [listening] = await Promise.all([answerOf(server), answerOf(client)])
      const { peerId, address } = listening as Listening
      await ask(client, { do: 'connect', peerId, address })
      return new Pair(server, client)
    } catch (error) {
      server.kill()
      client.kill()
      throw error
    }
  }

  /** Runs a job. Seconds on the clock, and processor time of both sides. */
  async run(job: Job): Promise<Round> {
    const before = await this.#cpuSeconds()
    const startedAt = performance.now()
    await ask(this.#client, job)
    const seconds = (performance.now() - startedAt) / 1000
    return { seconds, cpuSeconds: (await this.#cpuSeconds()) - before }
  }

  stop(): void {
    // The processes end when they lose their parent, however it ends.
    this.#server.disconnect()
    this.#client.disconnect()
  }

  async #cpuSeconds(): Promise<number> {
    const both = await Promise.all([this.#server, this.#client].map((child) => ask(child, { do: 'cpu' })))
    return (both as NodeJS.CpuUsage[]).reduce((sum, { user, system }) => sum + (user + system) / 1e6, 0)
  }
}

interface Listening {
  readonly peerId: string
  readonly address: string
}

function start(kind: Kind): ChildProcess {
  const { peer, flags } = SIDES[kind]
  return fork(join(import.meta.dirname, 'transport-peer.ts'), [peer], {
    execArgv: [...flags],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
}

function ask(child: ChildProcess, job: Job): Promise<unknown> {
  child.send(job)
  return answerOf(child)
}

function answerOf(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const onExit = (): void => reject(new Error('a process of the benchmark ended early'))
    child.once('exit', onExit)
    child.once('message', ({ result, error }: { result?: unknown; error?: string }) => {
      child.off('exit', onExit)
      if (error === undefined) resolve(result)
      else reject(new Error(error))
    })
  })
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}
