import { setTimeout as sleep } from 'node:timers/promises'
import { Bitmap } from '../../protocol/bitmap.ts'
import {
  ENDGAME_AGE_MS,
  FETCH_TICK_MS,
  FETCH_WINDOW_BYTES,
  HOLDER_WAIT_MS,
  NO_DELIVERY_MS,
  PEER_WAIT_MS,
  PROGRESS_DEADLINE_MS,
  RETRY_MAX_MS,
  RETRY_MIN_MS,
  STALL_DISCONNECT_MS,
} from '../../protocol/constants.ts'
import { digestOf, sameBytes } from '../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { unpackBlock, unpackWhole } from '../../protocol/granules.ts'
import type { MetadataVersions, PeerAddresses } from '../../protocol/messages.ts'
import type { FrameStream } from '../net/frame-stream.ts'
import type { ArrivedBlock } from './compressed-link.ts'
import { type Doubted, type FetchedBlock, FetchJob, type FetchRequest, type Ticket } from './fetch-job.ts'
import type { LocalFacts } from './local-facts.ts'
import { PeerLedger } from './peer-ledger.ts'
import { pickBlock } from './picker.ts'
import { PeerSession } from './session.ts'

/** Blocks that an error names one by one. */
const MAX_BLOCKS_NAMED = 16

export interface SwarmOptions {
  /** Opens an exchange stream to a connected peer. */
  readonly open: (peerId: string) => Promise<FrameStream>
  readonly local: () => LocalFacts
  readonly ledger?: PeerLedger
  readonly now?: () => number
  readonly random?: () => number
  /** Deadlines, for tests; see the constants of the same names. */
  readonly peerWaitMs?: number
  readonly holderWaitMs?: number
  readonly progressDeadlineMs?: number
  readonly stallDisconnectMs?: number
  readonly onVersions?: (peerId: string, versions: MetadataVersions) => void
  readonly onPeers?: (list: readonly PeerAddresses[]) => void
  readonly onBan?: (peerId: string, reason: string) => void
}

/** What is known of a peer the swarm has a session with. */
export interface PeerFacts {
  readonly id: string
  readonly name: string
  readonly blocks: number
  readonly bytes: number
  readonly bad: number
  readonly rate: number
  readonly stalled: boolean
}

/** A connected peer; one entry lasts from one addPeer to the next removePeer. */
interface PeerEntry {
  session: PeerSession<Ticket> | undefined
}

/** Fetches blocks and pages from all connected peers at once; every item is verified before it is handed on. */
export class Swarm {
  readonly ledger: PeerLedger
  readonly #options: Required<Pick<SwarmOptions, 'open' | 'local' | 'now' | 'random'>> & SwarmOptions
  /** Peers that are connected, with their session once it is open. */
  readonly #peers = new Map<string, PeerEntry>()
  readonly #jobs = new Set<FetchJob>()
  /** Bytes each session delivered since its rate was last measured. */
  readonly #metered = new Map<PeerSession<Ticket>, { bytes: number; since: number }>()
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: SwarmOptions) {
    this.#options = { now: Date.now, random: Math.random, ...options }
    this.ledger = options.ledger ?? new PeerLedger()
  }

  /** A member was connected: opens a session, and opens it again after a pause if it breaks, until it is removed. */
  addPeer(peerId: string): void {
    if (this.#closed || this.#peers.has(peerId) || this.ledger.isBanned(peerId)) return
    const entry: PeerEntry = { session: undefined }
    this.#peers.set(peerId, entry)
    void this.#keepSession(peerId, entry)
  }

  removePeer(peerId: string): void {
    const session = this.#peers.get(peerId)?.session
    this.#peers.delete(peerId)
    session?.abort(new MeshError('PEERS_UNREACHABLE', `${peerId} was disconnected`))
  }

  peers(): PeerFacts[] {
    return this.#sessions().map((session) => {
      const { blocks, bytes, bad, rate } = this.ledger.of(session.peerId)
      return { id: session.peerId, name: session.name, blocks, bytes, bad, rate, stalled: session.stalled }
    })
  }

  /** Have maps of the peers that hold (parts of) an image, by its root in hexadecimal. */
  holders(root: string): { peerId: string; held: Bitmap }[] {
    return this.#sessions().flatMap((session) => {
      const held = session.held(root)
      return held === undefined ? [] : [{ peerId: session.peerId, held }]
    })
  }

  /**
   * Fetches every wanted item and yields each once, verified, in the order of arrival. What is asked for and not yet
   * taken is bounded, so a slow consumer slows the peers down. Errors: PEERS_UNREACHABLE when no peer came in time,
   * BLOCKS_UNAVAILABLE naming what nobody holds, INTERRUPTED.
   */
  async *fetch(request: FetchRequest, signal: AbortSignal): AsyncGenerator<FetchedBlock> {
    const pending = Bitmap.fromRanges(request.wanted.length, request.wanted.toRanges())
    const job = new FetchJob(request, pending, this.#options.now())
    const abort = (): void => job.fail(new MeshError('INTERRUPTED', 'fetching was interrupted'))
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort)
    this.#jobs.add(job)
    this.#timer ??= setInterval(() => this.#tick(), FETCH_TICK_MS)
    try {
      this.#pump()
      while (!job.isDone) {
        const block = job.ready.shift()
        if (block !== undefined) {
          yield block
          this.#pump()
        } else if (job.failure !== undefined) throw job.failure
        else await job.changed()
      }
    } finally {
      signal.removeEventListener('abort', abort)
      this.#endJob(job)
    }
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#timer)
    for (const job of this.#jobs) job.fail(new MeshError('INTERRUPTED', 'the node was stopped'))
    for (const peerId of [...this.#peers.keys()]) this.removePeer(peerId)
  }

  #sessions(): PeerSession<Ticket>[] {
    return [...this.#peers.values()].map((entry) => entry.session).filter((session) => session !== undefined)
  }

  async #keepSession(peerId: string, entry: PeerEntry): Promise<void> {
    for (let pauseMs = RETRY_MIN_MS; this.#isWelcome(peerId, entry); pauseMs = Math.min(pauseMs * 2, RETRY_MAX_MS)) {
      try {
        const stream = await this.#options.open(peerId)
        const session = await PeerSession.open<Ticket>(stream, this.#options.local(), this.#events, this.#options.now)
        if (!this.#isWelcome(peerId, entry)) {
          session.abort(new MeshError('PEERS_UNREACHABLE', `${peerId} was disconnected`))
          return
        }
        entry.session = session
        pauseMs = RETRY_MIN_MS
        try {
          this.#pump()
          await session.run()
        } finally {
          this.#loseSession(session)
        }
      } catch (error) {
        // A peer that breaks the protocol is not asked again; one that is gone may come back.
        if (error instanceof MeshError && error.code === 'PROTOCOL_VIOLATION') this.#ban(peerId, error.message)
      }
      // Nobody waits for this pause, so it must not keep the process alive.
      await sleep(pauseMs, undefined, { ref: false })
    }
  }

  #isWelcome(peerId: string, entry: PeerEntry): boolean {
    return !this.#closed && this.#peers.get(peerId) === entry && !this.ledger.isBanned(peerId)
  }

  #loseSession(session: PeerSession<Ticket>): void {
    const entry = this.#peers.get(session.peerId)
    if (entry?.session === session) entry.session = undefined
    this.#metered.delete(session)
    for (const job of this.#jobs) for (const index of [...job.asked.keys()]) job.unask(session, index)
    this.#pump()
  }

  #ban(peerId: string, reason: string): void {
    if (this.ledger.isBanned(peerId)) return
    this.ledger.ban(peerId, reason)
    this.removePeer(peerId)
    this.#options.onBan?.(peerId, reason)
  }

  readonly #events = {
    block: (session: PeerSession<Ticket>, ticket: Ticket, content: ArrivedBlock) => {
      this.#received(session, ticket, content).catch((error: Error) => {
        if (isMeshError(error, 'PROTOCOL_VIOLATION')) this.#wrong(session, error.message)
        else ticket.job.fail(error)
      })
    },
    missing: (session: PeerSession<Ticket>, { job, index }: Ticket) => {
      job.refuse(session, index)
      job.unask(session, index)
      this.#pump()
    },
    busy: (session: PeerSession<Ticket>, { job, index }: Ticket) => {
      // Asked again at the next tick, of whoever has room then.
      job.unask(session, index)
    },
    have: () => this.#pump(),
    versions: (peerId: string, versions: MetadataVersions) => this.#options.onVersions?.(peerId, versions),
    peers: (list: readonly PeerAddresses[]) => this.#options.onPeers?.(list),
    totalRate: () => this.#sessions().reduce((sum, { openBytes, link }) => sum + (openBytes > 0 ? link.rate : 0), 0),
  }

  async #received(session: PeerSession<Ticket>, ticket: Ticket, content: ArrivedBlock): Promise<void> {
    const { job, index, granules } = ticket
    const { digestOf: expected, level, sparse, blockSize } = job.request
    this.#meter(session, content.payload.byteLength)
    // Already delivered by somebody else, or the job is over.
    if (!this.#isOpen(job, index)) return this.#pump()
    let data: Uint8Array
    if (granules === undefined) data = unpackWhole(content, blockSize)
    else {
      data = await sparse!.read(index)
      unpackBlock(content, granules, data)
    }
    const right = sameBytes(digestOf(data), await expected(index))
    if (!this.#isOpen(job, index)) return this.#pump()
    if (right) this.#deliver(session, ticket, data, content.wireBytes)
    else if (granules === undefined) {
      this.#wrong(session, `sent wrong bytes for ${level === 0 ? `block ${index}` : `page ${index} of level ${level}`}`)
    } else {
      // The peer lied, or what stands here beside the granules is wrong: the whole block will tell.
      job.doubted.set(index, { peerId: session.peerId, content, granules })
      job.recall(index, session)
    }
    this.#pump()
  }

  #isOpen(job: FetchJob, index: number): boolean {
    return this.#jobs.has(job) && (job.asked.has(index) || job.pending.has(index))
  }

  #deliver(session: PeerSession<Ticket>, ticket: Ticket, data: Uint8Array, received: number): void {
    const { job, index, granules } = ticket
    job.recall(index, session)
    job.pending.clear(index)
    this.ledger.delivered(session.peerId, received)
    const doubted = job.doubted.get(index)
    const neighboursWrong = doubted !== undefined && this.#judge(doubted, index, data)
    job.deliver(
      {
        index,
        data,
        peerId: session.peerId,
        received,
        ...(granules === undefined ? {} : { granules }),
        ...(neighboursWrong ? { neighboursWrong } : {}),
      },
      this.#options.now(),
    )
  }

  /** With the whole block at hand: whether the doubted granules were right. If not, the peer that sent them is banned. */
  #judge({ peerId, content, granules }: Doubted, index: number, block: Uint8Array): boolean {
    const claimed = Buffer.from(block)
    unpackBlock(content, granules, claimed)
    if (sameBytes(claimed, block)) return true
    this.ledger.of(peerId).bad++
    this.#ban(peerId, `sent wrong bytes for block ${index}`)
    return false
  }

  #wrong(session: PeerSession<Ticket>, what: string): void {
    this.ledger.of(session.peerId).bad++
    this.#ban(session.peerId, what)
    this.#loseSession(session)
  }

  #meter(session: PeerSession<Ticket>, bytes: number): void {
    const now = this.#options.now()
    const meter = this.#metered.get(session) ?? { bytes: 0, since: now }
    meter.bytes += bytes
    if (now - meter.since >= FETCH_TICK_MS) {
      this.ledger.measured(session.peerId, (meter.bytes * 1000) / (now - meter.since))
      this.#metered.set(session, { bytes: 0, since: now })
    } else this.#metered.set(session, meter)
  }

  /** Asks peers for as much as the windows allow, one request of each peer in turn. */
  #pump(): void {
    for (const job of this.#jobs) {
      let asking = this.#sessions()
      while (asking.length > 0 && job.pending.count > 0 && job.bytesUnderWay < FETCH_WINDOW_BYTES) {
        asking = asking.filter((session) => this.#askOne(job, session))
      }
    }
  }

  #askOne(job: FetchJob, session: PeerSession<Ticket>): boolean {
    if (job.pending.count === 0 || job.bytesUnderWay >= FETCH_WINDOW_BYTES) return false
    if (!session.hasRoom(job.request.blockSize, this.ledger.of(session.peerId).rate)) return false
    const available = job.available(session)
    if (available === null) return false
    const index = pickBlock(job.pending, available, (i) => this.#countHolders(job, i), this.#options.random)
    if (index === -1 || !job.has(session, index)) return false
    job.pending.clear(index)
    this.#ask(job, session, index)
    return true
  }

  #countHolders(job: FetchJob, index: number): number {
    if (job.request.level > 0) return 1
    let count = 0
    for (const { session } of this.#peers.values()) if (session?.held(job.root)?.has(index) === true) count++
    return count
  }

  #ask(job: FetchJob, session: PeerSession<Ticket>, index: number): void {
    const ask = { session, id: undefined as number | undefined, askedAt: this.#options.now() }
    job.asked.set(index, [...(job.asked.get(index) ?? []), ask])
    job.request.digestOf(index).then(
      (digest) => {
        if (job.asked.get(index)?.includes(ask) !== true) return
        const { level, blockSize } = job.request
        const granules = job.granules(index)
        ask.id = session.ask({ job, index, granules }, { digest, level, index, size: blockSize }, granules)
      },
      (error: Error) => job.fail(error),
    )
  }

  /** Looks after what no message triggers: stalled peers, missing holders, slow last requests. */
  #tick(): void {
    const now = this.#options.now()
    for (const session of this.#sessions()) this.#checkProgress(session, now)
    this.#pump()
    for (const job of this.#jobs) {
      if (job.pending.count === 0) this.#askTwice(job, now)
      this.#checkHolders(job, now)
    }
  }

  #checkProgress(session: PeerSession<Ticket>, now: number): void {
    if (session.openBytes === 0) return
    const silentMs = now - session.progressAt
    if (silentMs >= (this.#options.stallDisconnectMs ?? STALL_DISCONNECT_MS)) {
      session.abort(new MeshError('REQUEST_TIMEOUT', `${session.peerId} sent nothing for ${silentMs} ms`))
    } else if (silentMs >= (this.#options.progressDeadlineMs ?? PROGRESS_DEADLINE_MS) && !session.stalled) {
      session.stalled = true
      this.ledger.of(session.peerId).stalls++
      // Its answers are still welcome; until then others are asked for the same.
      for (const { job, index } of session.tickets()) job.unask(session, index)
    }
  }

  /** At the very end a slow peer's last requests are asked of a second peer that has nothing else to do. */
  #askTwice(job: FetchJob, now: number): void {
    for (const [index, asks] of job.asked) {
      const [first] = asks
      if (asks.length > 1 || first === undefined || now - first.askedAt < ENDGAME_AGE_MS) continue
      const idle = this.#sessions().find(
        (session) =>
          session !== first.session && session.openBytes === 0 && !session.stalled && job.has(session, index),
      )
      if (idle === undefined) return
      this.#ask(job, idle, index)
    }
  }

  #checkHolders(job: FetchJob, now: number): void {
    const sessions = this.#sessions()
    const idle = job.ready.length === 0 && job.pending.count + job.asked.size > 0
    if (idle && now - job.deliveredAt >= NO_DELIVERY_MS && sessions.length > 0) {
      job.fail(this.#unavailable(job, sessions.length, 'delivers'))
      return
    }
    if (!idle || job.asked.size > 0 || sessions.some((session) => this.#canServe(job, session))) {
      job.helpedAt = now
      return
    }
    const waitedMs = now - job.helpedAt
    if (sessions.length === 0) {
      if (waitedMs < (this.#options.peerWaitMs ?? PEER_WAIT_MS)) return
      job.fail(
        new MeshError(
          'PEERS_UNREACHABLE',
          `no machine of the site could be reached in ${Math.round(waitedMs / 1000)} s`,
        ),
      )
    } else if (waitedMs >= (this.#options.holderWaitMs ?? HOLDER_WAIT_MS)) {
      job.fail(this.#unavailable(job, sessions.length, 'holds'))
    }
  }

  #canServe(job: FetchJob, session: PeerSession<Ticket>): boolean {
    const available = job.available(session)
    if (available === null) return false
    if (available !== undefined) return job.pending.nextSetInBoth(available, 0) !== -1
    return job.has(session, job.pending.nextSet(0))
  }

  #unavailable(job: FetchJob, peers: number, verb: 'holds' | 'delivers'): MeshError {
    const { level } = job.request
    for (const index of job.asked.keys()) job.pending.set(index)
    const blocks = [...job.pending.values().take(MAX_BLOCKS_NAMED)]
    const { count } = job.pending
    const more = count > blocks.length ? ` and ${count - blocks.length} more` : ''
    const what = level === 0 ? 'blocks' : `hash pages of level ${level}:`
    return new MeshError(
      'BLOCKS_UNAVAILABLE',
      `none of ${peers} reachable machines ${verb} ${what} ${blocks.join(', ')}${more}`,
      {
        detail: { level, blocks, count },
      },
    )
  }

  #endJob(job: FetchJob): void {
    this.#jobs.delete(job)
    for (const asks of job.asked.values()) for (const ask of asks) if (ask.id !== undefined) ask.session.cancel(ask.id)
    if (this.#jobs.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
