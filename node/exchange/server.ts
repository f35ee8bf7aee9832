import type { Bitmap } from '../../protocol/bitmap.ts'
import {
  HELLO_DEADLINE_MS,
  MAX_RUNS_PER_HAVE,
  SERVE_READ_AHEAD,
  SESSION_CREDIT_BYTES,
} from '../../protocol/constants.ts'
import type { Digest } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import { decodeGranules, packBlock, wantedBytes } from '../../protocol/granules.ts'
import type { Message, PeerAddresses, WantRequest } from '../../protocol/messages.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'
import type { FrameStream } from '../net/frame-stream.ts'
import type { Holding } from '../store/block-source.ts'
import { BlockPacker } from './block-packer.ts'
import { checkHello, type Hello, helloOf, type LocalFacts } from './local-facts.ts'

/** Bytes of open requests beyond the credit that are answered `busy`; more is a violation. */
const CREDIT_GRACE = 2
const BUSY_RETRY_MS = 100

export interface ServerOptions {
  readonly local: () => LocalFacts
  readonly holdings: () => readonly Holding[]
  /** Addresses of members, to tell clients where else to ask. */
  readonly peers: () => readonly PeerAddresses[]
  readonly onHello?: (peerId: string, hello: Hello) => void
  readonly onServed?: (peerId: string, bytes: number) => void
}

/** Answers exchange streams that others open: says what is held, and serves it (docs/PROTOCOL.md). */
export class ExchangeServer {
  readonly #options: ServerOptions
  readonly #sessions = new Set<ServerSession>()
  readonly #packer = new BlockPacker()
  /** Holdings whose changes are passed on, with the function that ends that. */
  readonly #watched = new Map<Holding, () => void>()

  constructor(options: ServerOptions) {
    this.#options = options
    this.#watchHoldings()
  }

  /** Serves one stream until the client closes it. */
  async serve(stream: FrameStream): Promise<void> {
    const session = new ServerSession(stream, this.#options, this.#packer)
    this.#sessions.add(session)
    try {
      await session.run()
    } finally {
      this.#sessions.delete(session)
    }
  }

  /** The trusted metadata changed: clients may want to fetch it. */
  announce(): void {
    this.#broadcast({ type: 'announce', metadata: this.#options.local().metadata })
  }

  /** The list of members' addresses changed. */
  peersChanged(): void {
    this.#broadcast({ type: 'peers', peers: this.#options.peers() })
  }

  /** An image was added to, or taken from, what this node holds. */
  holdingsChanged(): void {
    const added = this.#watchHoldings()
    this.#broadcast({ type: 'holds', held: this.#options.local().held })
    for (const session of this.#sessions) for (const holding of added) session.tellHeld(holding)
  }

  close(): void {
    for (const stop of this.#watched.values()) stop()
    this.#watched.clear()
  }

  #watchHoldings(): Holding[] {
    const current = new Set(this.#options.holdings())
    for (const [holding, stop] of this.#watched) {
      if (current.has(holding)) continue
      stop()
      this.#watched.delete(holding)
    }
    const added = [...current].filter((holding) => !this.#watched.has(holding))
    for (const holding of added) {
      const stop = holding.onChange(({ gained, lost }) => {
        for (const session of this.#sessions) session.tell(holding.root, gained, lost)
      })
      this.#watched.set(holding, stop)
    }
    return added
  }

  #broadcast(message: Message): void {
    for (const session of this.#sessions) session.post(message)
  }
}

/** A request that was taken on. `cost`: what it takes of the credit. */
interface OpenRequest extends WantRequest {
  readonly wanted: Bitmap | undefined
  readonly cost: number
  /** Bytes from which on the answer may be compressed. */
  readonly packFrom: number
}

/** One client's stream. Its queue is bounded by the credit, its reads by SERVE_READ_AHEAD. */
class ServerSession {
  readonly #stream: FrameStream
  readonly #options: ServerOptions
  readonly #packer: BlockPacker
  readonly #queue: OpenRequest[] = []
  #openBytes = 0
  #reading = 0
  #greeted = false

  constructor(stream: FrameStream, options: ServerOptions, packer: BlockPacker) {
    this.#stream = stream
    this.#options = options
    this.#packer = packer
  }

  async run(): Promise<void> {
    const { peerId } = this.#stream
    const timer = setTimeout(
      () => this.#stream.abort(new MeshError('REQUEST_TIMEOUT', `${peerId} did not say hello`)),
      HELLO_DEADLINE_MS,
    )
    try {
      for await (const message of this.#stream.messages()) {
        if (!this.#greeted) {
          const hello = checkHello(message, peerId, this.#options.local())
          clearTimeout(timer)
          await this.#greet(hello)
        } else if (message.type === 'want') this.#want(message.requests, message.packFrom)
        else if (message.type === 'cancel') this.#cancel(message.ids)
        else throw new MeshError('PROTOCOL_VIOLATION', `${peerId} sent ${message.type} to a server`)
      }
    } finally {
      clearTimeout(timer)
      this.#queue.length = 0
    }
  }

  /** Sends without waiting; the stream's own end is noticed by the reading side. */
  post(message: Message): void {
    if (!this.#greeted) return
    this.#stream.send(message).catch((error: Error) => this.#stream.abort(error))
  }

  tellHeld(holding: Holding): void {
    this.tell(holding.root, holding.held(), RangeSet.empty)
  }

  tell(root: Digest, gained: RangeSet, lost: RangeSet): void {
    for (const part of split(lost)) this.post({ type: 'have', root, gained: RangeSet.empty, lost: part })
    for (const part of split(gained)) this.post({ type: 'have', root, gained: part, lost: RangeSet.empty })
  }

  async #greet(hello: Hello): Promise<void> {
    const sent = this.#stream.send(helloOf(this.#options.local()))
    // From here on nothing that changes is missed: it is queued behind the hello.
    this.#greeted = true
    await sent
    this.#options.onHello?.(this.#stream.peerId, hello)
    for (const holding of this.#options.holdings()) this.tellHeld(holding)
    this.post({ type: 'peers', peers: this.#options.peers() })
  }

  #want(requests: readonly WantRequest[], packFrom: number): void {
    const busy: number[] = []
    for (const request of requests) {
      const wanted = decodeGranules(request.granules, request.size)
      const cost = wantedBytes(wanted, request.size)
      if (this.#openBytes + cost > SESSION_CREDIT_BYTES) busy.push(request.id)
      else {
        this.#openBytes += cost
        this.#queue.push({ ...request, wanted, cost, packFrom })
      }
    }
    if (busy.length > (SESSION_CREDIT_BYTES * CREDIT_GRACE) / 4096) {
      throw new MeshError('PROTOCOL_VIOLATION', `${this.#stream.peerId} asks far beyond its credit`)
    }
    if (busy.length > 0) this.post({ type: 'busy', ids: busy, retryAfterMs: BUSY_RETRY_MS })
    this.#serve()
  }

  #cancel(ids: readonly number[]): void {
    const cancelled = new Set(ids)
    for (let i = this.#queue.length - 1; i >= 0; i--) {
      if (!cancelled.has(this.#queue[i]!.id)) continue
      this.#openBytes -= this.#queue[i]!.cost
      this.#queue.splice(i, 1)
    }
  }

  #serve(): void {
    while (this.#reading < SERVE_READ_AHEAD) {
      const request = this.#queue.shift()
      if (request === undefined) return
      this.#reading++
      this.#answer(request)
        .catch((error: Error) => this.#stream.abort(error))
        .finally(() => {
          this.#reading--
          this.#serve()
        })
    }
  }

  async #answer(request: OpenRequest): Promise<void> {
    for (const holding of this.#options.holdings()) {
      // A disk that fails to read a block does not have it; the fault shows at its own restore.
      const block = await holding.get(request.digest, request).catch(() => undefined)
      if (block === undefined || block.byteLength !== request.size) continue
      const packed = await this.#packer.pack(packBlock(block, request.wanted), request.packFrom)
      await this.#release(request, { type: 'block', id: request.id, ...packed })
      this.#options.onServed?.(this.#stream.peerId, packed.payload.byteLength)
      return
    }
    await this.#release(request, { type: 'missing', ids: [request.id] })
  }

  /** The credit is free before the client can know of the answer, else its next request would find the server busy. */
  #release(request: OpenRequest, message: Message): Promise<void> {
    this.#openBytes -= request.cost
    return this.#stream.send(message)
  }
}

/** Parts of a set that fit one have message each. */
function* split(ranges: RangeSet): Generator<RangeSet> {
  let runs: Run[] = []
  for (const run of ranges.runs()) {
    runs.push(run)
    if (runs.length < MAX_RUNS_PER_HAVE) continue
    yield RangeSet.from(runs)
    runs = []
  }
  if (runs.length > 0) yield RangeSet.from(runs)
}
