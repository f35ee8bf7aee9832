/**
 * The folder node/exchange/serve is the answering side of the exchange: it serves what this machine holds, to many clients.
 * - `server` reads the requests of each client's stream, and sends the answers; `find-content` answers what is held at all.
 * - `serve-scheduler` decides what is answered next: `fair-queue` serves clients in turn, `serve-pace` keeps to the limits on rate
 *   and processor, `serve-places` to the limit on peers.
 * - `client-account` bounds what one client may have open, and may make this machine do for nothing.
 * - `block-packer` compresses answers for clients that want that, where `compressibility` says that it is worth trying.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Bitmap } from '../../../protocol/bitmap.ts'
import { DIGEST_SIZE_BYTES, HELLO_DEADLINE_MS, MAX_FINDS_OPEN, MAX_RUNS_PER_HAVE } from '../../../protocol/constants.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { decodeGranules, packBlock, wantedBytes } from '../../../protocol/granules.ts'
import type { PeerAddresses, WantRequest } from '../../../protocol/message-parts.ts'
import type { Message } from '../../../protocol/messages.ts'
import { RangeSet, type Run } from '../../../protocol/ranges.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import type { Deliver, Holding } from '../../store/block-source.ts'
import { BUSY_RETRY_MIN_MS } from '../limits.ts'
import { checkHello, type Hello, helloOf, type LocalFacts } from '../local-facts.ts'
import type { ServeGate } from '../serve-gate.ts'
import { BlockPacker, type CodedBlock } from './block-packer.ts'
import { ClientAccount } from './client-account.ts'
import { findContent } from './find-content.ts'
import { PEERS_DELAY_MS } from './limits.ts'
import type { PaceOptions, ServeLimits } from './serve-pace.ts'
import { type ServeFigures, type ServeJob, ServeScheduler } from './serve-scheduler.ts'
import { splitPeers, ToldPeers } from './told-peers.ts'

interface ServerOptions {
  readonly local: () => LocalFacts
  readonly holdings: () => readonly Holding[]
  /** Addresses of members, to tell clients where else to ask. */
  readonly peers: () => readonly PeerAddresses[]
  readonly onHello?: (peerId: string, hello: Hello) => void
  /** What a client fetches over the uplink. */
  readonly onFetching?: (peerId: string, message: Extract<Message, { type: 'fetching' }>) => void
  /** Holds answers to other sites back. */
  readonly gate?: ServeGate
  readonly limits?: ServeLimits
  /** Clock and processor time, for tests. */
  readonly pace?: Partial<PaceOptions>
}

/** What one client has here at the moment. */
export interface ClientFigures {
  readonly id: string
  readonly streams: number
  /** Bytes that it has asked for and that are not answered. */
  readonly openBytes: number
  readonly messagesPerSecond: number
}

/**
 * Answers exchange streams that other machines open: says what is held, and serves it (docs/PROTOCOL.md).
 *
 * Each stream has a ServerSession, which reads what the client sends and holds it to its credit. Requests of all clients go to
 * one ServeScheduler, which decides what is answered next. The holdings read and hash what the scheduler picks, BlockPacker packs
 * it, and the session of the client that asked sends it.
 */
export class ExchangeServer {
  readonly #options: ServerOptions
  readonly #sessions = new Set<ServerSession>()
  /** Of clients that have a stream, and of those that had one lately. */
  readonly #accounts = new Map<string, ClientAccount>()
  readonly #packer = new BlockPacker()
  /** Holdings whose changes are passed on, with the function that ends that. */
  readonly #watched = new Map<Holding, () => void>()
  readonly #scheduler: ServeScheduler<OpenRequest>
  /** When clients are told next where members are. */
  #tellsPeersAt = Number.POSITIVE_INFINITY
  #peersTimer: NodeJS.Timeout | undefined

  constructor(options: ServerOptions) {
    this.#options = options
    const { gate } = options
    this.#scheduler = new ServeScheduler({
      ...options.pace,
      ...(gate === undefined ? {} : { gate }),
      serve: (requests) => this.#answer(requests),
    })
    if (options.limits !== undefined) this.limit(options.limits)
    this.#watchHoldings()
  }

  /** Serves one stream until the client closes it. */
  async serve(stream: FrameStream): Promise<void> {
    const { peerId } = stream
    const account = this.#accounts.get(peerId) ?? new ClientAccount(now(this.#options))
    // It outlasts the stream: who opens a stream anew begins with what is left.
    this.#accounts.set(peerId, account)
    const session = new ServerSession(stream, {
      options: this.#options,
      scheduler: this.#scheduler,
      packer: this.#packer,
      account,
    })
    this.#sessions.add(session)
    account.streams++
    try {
      await session.run()
    } finally {
      this.#sessions.delete(session)
      if (--account.streams === 0) this.#scheduler.leave(peerId)
    }
  }

  /** What serving may take of the machine from now on. */
  limit(limits: ServeLimits): void {
    this.#scheduler.limit(limits)
  }

  figures(): ServeFigures {
    return this.#scheduler.figures()
  }

  /** Clients that have a stream. */
  clients(): ClientFigures[] {
    const at = now(this.#options)
    return [...this.#accounts].flatMap(([id, account]) => {
      const { streams, openBytes } = account
      return streams === 0 ? [] : [{ id, streams, openBytes, messagesPerSecond: account.messagesPerSecond(at) }]
    })
  }

  /** The trusted metadata changed: clients may want to fetch it. */
  announce(): void {
    this.#broadcast({ type: 'announce', metadata: this.#options.local().metadata })
  }

  /** A member was connected, or addresses of one became known: clients hear of what is new to them, a moment later. */
  peersChanged(): void {
    this.#tellPeersIn(PEERS_DELAY_MS)
  }

  /** An image was added to, or taken from, what this node holds. */
  holdingsChanged(): void {
    const added = this.#watchHoldings()
    this.#broadcast({ type: 'holds', held: this.#options.local().held })
    for (const session of this.#sessions) for (const holding of added) session.tellHeld(holding)
  }

  close(): void {
    clearTimeout(this.#peersTimer)
    this.#scheduler.close()
    for (const stop of this.#watched.values()) stop()
    this.#watched.clear()
  }

  #tellPeersIn(ms: number): void {
    const at = now(this.#options) + ms
    if (this.#tellsPeersAt <= at) return
    clearTimeout(this.#peersTimer)
    this.#tellsPeersAt = at
    this.#peersTimer = setTimeout(() => this.#tellPeers(), ms).unref()
  }

  #tellPeers(): void {
    this.#tellsPeersAt = Number.POSITIVE_INFINITY
    const known = this.#options.peers()
    const waits = [...this.#sessions].map((session) => session.tellPeers(known)).filter((ms) => ms !== undefined)
    if (waits.length > 0) this.#tellPeersIn(Math.max(PEERS_DELAY_MS, Math.min(...waits)))
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

  /** Each holding is asked for what those before it do not have. */
  async #answer(requests: readonly OpenRequest[]): Promise<void> {
    let left = requests
    for (const holding of this.#options.holdings()) {
      const open = new Set(left)
      const asked = left
      const deliver: Deliver = (at, block) => {
        const request = asked[at]!
        if (block === undefined || block.byteLength !== request.size || !open.delete(request)) return
        request.session.answer(request, block)
      }
      // A block that cannot be read counts as not held; this machine's own restore reports the fault.
      await holding.getMany(asked, deliver).catch(() => undefined)
      left = [...open]
      if (left.length === 0) return
    }
    for (const request of left) request.session.miss(request)
  }

  #broadcast(message: Message): void {
    for (const session of this.#sessions) session.post(message)
  }
}

/** A request that was admitted. */
interface OpenRequest extends WantRequest, ServeJob {
  readonly level: number
  readonly session: ServerSession
  readonly wanted: Bitmap | undefined
  /** Bytes from which on the answer may be compressed. */
  readonly packFrom: number
}

/** What a {@link ServerSession} works with. */
interface SessionParts {
  readonly options: ServerOptions
  readonly scheduler: ServeScheduler<OpenRequest>
  readonly packer: BlockPacker
  readonly account: ClientAccount
}

/** One client's stream. The credit bounds what the client may ask; the scheduler decides when it is answered. */
class ServerSession {
  readonly #stream: FrameStream
  readonly #options: ServerOptions
  readonly #scheduler: ServeScheduler<OpenRequest>
  readonly #packer: BlockPacker
  readonly #account: ClientAccount
  readonly #told: ToldPeers
  #finding = 0
  /** Resolves when the client has taken what was found for it: one that searches and reads nothing fills no memory. */
  #foundTaken: Promise<void> = Promise.resolve()
  #greeted = false
  #ended = false

  constructor(stream: FrameStream, { options, scheduler, packer, account }: SessionParts) {
    this.#stream = stream
    this.#options = options
    this.#scheduler = scheduler
    this.#packer = packer
    this.#account = account
    this.#told = new ToldPeers(stream.peerId)
  }

  get peerId(): string {
    return this.#stream.peerId
  }

  async run(): Promise<void> {
    const { peerId } = this.#stream
    const timer = setTimeout(
      () => this.#stream.abort(new MeshError('REQUEST_TIMEOUT', `${peerId} did not say hello`)),
      HELLO_DEADLINE_MS,
    )
    try {
      for await (const message of this.#stream.messages()) {
        if (!this.#account.take(message, now(this.#options))) throw this.#excess()
        if (!this.#greeted) {
          const hello = checkHello(message, peerId, this.#options.local())
          clearTimeout(timer)
          await this.#greet(hello)
        } else if (message.type === 'want') await this.#want(message.requests, message.packFrom)
        else if (message.type === 'cancel') this.#cancel(message.ids)
        else if (message.type === 'find') {
          await this.#foundTaken
          this.#find(message.id, message.payload)
        } else if (message.type === 'fetching') this.#options.onFetching?.(peerId, message)
        else throw new MeshError('PROTOCOL_VIOLATION', `${peerId} sent ${message.type} to a server`)
      }
    } finally {
      clearTimeout(timer)
      this.#ended = true
      this.#account.abandon(
        this.#takeOut(() => true),
        now(this.#options),
      )
    }
  }

  /** Sends without waiting. If the stream has ended, the side that reads notices that. */
  post(message: Message): void {
    if (this.#greeted) void this.#send(message)
  }

  tellHeld(holding: Holding): void {
    this.tell(holding.root, holding.held(), RangeSet.empty)
  }

  tell(root: Digest, gained: RangeSet, lost: RangeSet): void {
    for (const part of split(lost)) this.post({ type: 'have', root, gained: RangeSet.empty, lost: part })
    for (const part of split(gained)) this.post({ type: 'have', root, gained: part, lost: RangeSet.empty })
  }

  /** Tells what is new to the client. Returns in how many milliseconds there is more to tell, if anything has to wait. */
  tellPeers(known: readonly PeerAddresses[]): number | undefined {
    if (!this.#greeted) return undefined
    const { peers, laterMs } = this.#told.news(known, now(this.#options))
    for (const part of splitPeers(peers)) this.post({ type: 'peers', peers: part })
    return laterMs
  }

  async #send(message: Message): Promise<void> {
    await this.#stream.send(message).catch((error: Error) => this.#stream.abort(error))
  }

  async #greet(hello: Hello): Promise<void> {
    const sent = this.#stream.send(helloOf(this.#options.local()))
    // From here on nothing that changes is missed: it is queued behind the hello.
    this.#greeted = true
    await sent
    this.#options.onHello?.(this.#stream.peerId, hello)
    for (const holding of this.#options.holdings()) this.tellHeld(holding)
    this.tellPeers(this.#options.peers())
  }

  /** Resolves when the client has taken what it was refused: one that asks and reads nothing fills no memory. */
  async #want(requests: readonly WantRequest[], packFrom: number): Promise<void> {
    const busy: number[] = []
    let beyond = 0
    let retryAfterMs = BUSY_RETRY_MIN_MS
    const account = this.#account
    for (const request of requests) {
      const wanted = decodeGranules(request.granules, request.size)
      const cost = wantedBytes(wanted, request.size)
      const busyMs = this.#scheduler.admit(this.peerId, account.openBytes)
      if (busyMs > 0 || !account.hasCredit(cost)) {
        retryAfterMs = Math.max(retryAfterMs, busyMs)
        if (busyMs === 0) beyond++
        busy.push(request.id)
      } else {
        account.openBytes += cost
        this.#scheduler.push({ ...request, client: this.peerId, session: this, wanted, cost, packFrom })
      }
    }
    if (busy.length === 0) return
    if (!account.refuse(busy.length, beyond, now(this.#options))) throw this.#excess()
    await this.#send({ type: 'busy', ids: busy, retryAfterMs })
  }

  #find(id: number, digests: Uint8Array): void {
    if (++this.#finding > MAX_FINDS_OPEN) {
      throw new MeshError('PROTOCOL_VIOLATION', `${this.peerId} has too many searches open`)
    }
    const waitMs = this.#account.search(digests.byteLength / DIGEST_SIZE_BYTES, now(this.#options))
    const turn = waitMs > 0 ? sleep(waitMs, undefined, { ref: false }) : Promise.resolve()
    turn
      .then(() => findContent(this.#options.holdings(), digests))
      .then(
        (found) => {
          this.#foundTaken = this.#send({ type: 'found', id, found })
        },
        (error: Error) => this.#stream.abort(error),
      )
      .finally(() => this.#finding--)
  }

  #excess(): MeshError {
    return new MeshError('PROTOCOL_VIOLATION', `${this.peerId} asked for more than anybody can use`)
  }

  #cancel(ids: readonly number[]): void {
    const cancelled = new Set(ids)
    this.#takeOut(({ id }) => cancelled.has(id))
  }

  /** Takes requests of this stream that still wait out of the queue. Returns how many. */
  #takeOut(isGone: (request: OpenRequest) => boolean): number {
    let count = 0
    this.#scheduler.remove(this.peerId, (request) => {
      if (request.session !== this || !isGone(request)) return false
      this.#account.openBytes -= request.cost
      count++
      return true
    })
    return count
  }

  answer(request: OpenRequest, block: Uint8Array): void {
    this.#pack(request, block).then(
      (coded) => this.#release(request, { type: 'block', id: request.id, ...coded }, coded.payload.byteLength),
      (error: Error) => {
        this.#stream.abort(error)
        // The request counts no longer against the limits.
        this.miss(request)
      },
    )
  }

  async #pack({ wanted, checks, packFrom }: OpenRequest, block: Uint8Array): Promise<CodedBlock> {
    return await this.#packer.pack(packBlock(block, wanted, checks), packFrom)
  }

  miss(request: OpenRequest): void {
    this.#release(request, { type: 'missing', ids: [request.id] }, 0)
  }

  /** Frees the credit before the client can know of the answer; otherwise its next request would find the server busy. */
  #release(request: OpenRequest, message: Message, bytes: number): void {
    this.#account.openBytes -= request.cost
    const sent = this.#ended ? Promise.resolve() : this.#stream.send(message)
    sent.catch((error: Error) => this.#stream.abort(error)).finally(() => this.#scheduler.taken(request, bytes))
  }
}

function now({ pace }: ServerOptions): number {
  return pace?.now?.() ?? performance.now()
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
