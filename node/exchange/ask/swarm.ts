import { setTimeout as sleep } from 'node:timers/promises'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { type Digest, digestOf, sameBytes } from '../../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { granuleChecks, sentGranules, unpackBlock, unpackWhole } from '../../../protocol/granules.ts'
import type { MetadataVersions, PeerAddresses } from '../../../protocol/messages.ts'
import type { RangeSet } from '../../../protocol/ranges.ts'
import { HAND_OVER_MS, HAND_OVER_TICK_MS } from '../limits.ts'
import { FarSide, type FetchingMessage } from '../uplink/far-side.ts'
import { FAR_ASSUMED_LINK_RATE } from '../uplink/limits.ts'
import type { UplinkPace } from '../uplink/uplink-pace.ts'
import type { ArrivedBlock } from './compressed-link.ts'
import { searchContent } from './content-search.ts'
import { type Doubted, FetchJob, type Ticket } from './fetch-job.ts'
import type { FetchedBlock, FetchRequest } from './fetch-request.ts'
import {
  FAR_PROGRESS_DEADLINE_MS,
  FAR_STALL_DISCONNECT_MS,
  FETCH_TICK_MS,
  PROGRESS_DEADLINE_MS,
  STALL_DISCONNECT_MS,
} from './limits.ts'
import { PeerLedger } from './peer-ledger.ts'
import type { PeerSession } from './session.ts'
import { Sessions } from './sessions.ts'
import type { SwarmOptions } from './swarm-options.ts'
import { whyUnavailable } from './unavailable.ts'

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

/** Fetches blocks and pages from all connected peers at once; every item is verified before it is handed on. */
export class Swarm {
  readonly ledger: PeerLedger
  readonly #options: Required<Pick<SwarmOptions, 'self' | 'open' | 'local' | 'now' | 'random'>> & SwarmOptions
  readonly #sessions: Sessions<Ticket>
  readonly #jobs = new Set<FetchJob>()
  readonly #far: FarSide
  #timer: NodeJS.Timeout | undefined
  #starves = false

  constructor(options: SwarmOptions) {
    this.#options = { now: Date.now, random: Math.random, ...options }
    this.ledger = options.ledger ?? new PeerLedger()
    this.#sessions = new Sessions({
      ...this.#options,
      ledger: this.ledger,
      events: this.#events,
      opened: (session) => {
        if (this.#far.isFar(session.peerId)) session.assumeSlow(FAR_ASSUMED_LINK_RATE)
        else this.#far.met(session)
        for (const job of this.#jobs) this.#enlist(job, session)
        this.#pump()
      },
      ended: (session) => this.#loseSession(session),
    })
    this.#far = new FarSide({
      self: options.self,
      isFar: options.isFar ?? (() => false),
      nearSettled: options.nearSettled ?? (() => true),
      sessions: () => this.#sessions.all(),
      jobs: this.#jobs,
      now: this.#options.now,
    })
  }

  /** A member was connected: opens a session, and opens it again after a pause if it breaks, until it is removed. */
  addPeer(peerId: string): void {
    this.#sessions.add(peerId)
  }

  removePeer(peerId: string): void {
    this.#sessions.remove(peerId)
    this.#far.gone(peerId)
  }

  /** What this machine may ask for over the uplink; undefined: all it wants. */
  limitUplink(pace: UplinkPace | undefined): void {
    this.#far.pace = pace
  }

  /** Waits until others no longer need what came over the uplink to this machine last, for a bounded time. */
  async handOver(): Promise<void> {
    const until = this.#options.now() + HAND_OVER_MS
    while (this.#far.isNeeded && this.#options.now() < until) await sleep(HAND_OVER_TICK_MS)
  }

  /** A peer said what it fetches over the uplink. */
  heardFetching(peerId: string, message: FetchingMessage): void {
    this.#far.heard(peerId, message)
    this.#pump()
  }

  peers(): PeerFacts[] {
    return this.#sessions.all().map((session) => {
      const { blocks, bytes, bad } = this.ledger.of(session.peerId)
      const { peerId: id, name, rate, isStalled: stalled } = session
      return { id, name, blocks, bytes, bad, rate, stalled }
    })
  }

  hasSession(peerId: string): boolean {
    return this.#sessions.has(peerId)
  }

  /** Whether something is to be fetched that nobody who is connected has. */
  get starves(): boolean {
    return this.#starves
  }

  /** Whether something is to be fetched that nobody near has. */
  get wantsFar(): boolean {
    return this.#starves || (this.#sessions.all().length > 0 && this.#far.isWanted)
  }

  /** Have maps of the peers that hold (parts of) an image, by its root in hexadecimal. */
  holders(root: string): { peerId: string; held: Bitmap }[] {
    return this.#sessions.all().flatMap((session) => {
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
    const job = new FetchJob(request, this.#options.self, this.#options.random, this.#options.now())
    this.#far.begin(job)
    for (const session of this.#sessions.all()) this.#enlist(job, session)
    const abort = (): void => job.fail(new MeshError('INTERRUPTED', 'fetching was interrupted'))
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort)
    this.#jobs.add(job)
    this.#timer ??= setInterval(() => this.#tick(), FETCH_TICK_MS)
    try {
      this.#pump()
      while (!job.isDone) {
        const hadRoom = job.hasRoom
        const block = job.take()
        if (block !== undefined) {
          if (!hadRoom) this.#pump()
          yield block
        } else if (job.failure !== undefined) throw job.failure
        else await job.changed()
      }
    } finally {
      signal.removeEventListener('abort', abort)
      this.#endJob(job)
    }
  }

  close(): void {
    clearInterval(this.#timer)
    this.#far.close()
    for (const job of this.#jobs) job.fail(new MeshError('INTERRUPTED', 'the node was stopped'))
    this.#sessions.close()
  }

  #loseSession(session: PeerSession<Ticket>): void {
    for (const ticket of session.tickets()) ticket.job.unask(ticket)
    for (const job of this.#jobs) job.picker.removePeer(session.peerId)
    this.#far.gone(session.peerId)
    this.#pump()
  }

  /** The picker learns of a peer, or that it no longer holds the image. */
  #enlist(job: FetchJob, session: PeerSession<Ticket>): void {
    const { peerId } = session
    const have = job.available(session)
    job.picker.removePeer(peerId)
    const now = this.#options.now()
    const near = !this.#far.isFar(peerId)
    if (!near && this.#far.isClosed) return
    if (have === null) {
      // Whoever holds another image may have blocks of this one all the same, and pages, which it is simply asked for.
      const pages = job.request.level > 0
      if (session.roots().next().done === true || (pages && (!near || job.hasGivenUp(session)))) return
      const guessed = new Bitmap(job.request.wanted.length)
      if (pages) guessed.setRange(0, guessed.length)
      job.picker.addPeer(peerId, { have: guessed, elsewhere: true, near }, now)
      if (near && !pages) this.#search(job, session)
    } else job.picker.addPeer(peerId, { have, near }, now)
    if (this.#options.isReluctant?.(peerId) === true) job.picker.setReluctant(peerId, true)
    if (session.rate > 0) job.picker.setSpeed(peerId, session.rate)
    this.#far.noticed(job)
  }

  /** One search of a peer at a time; what comes to know of it anew meanwhile is searched for when that one has ended. */
  #search(job: FetchJob, session: PeerSession<Ticket>): void {
    const running = job.searches.has(session)
    job.searches.set(session, running)
    if (running) return
    const goesOn = (): boolean =>
      this.#jobs.has(job) &&
      this.#sessions.isOpen(session) &&
      // Not while it is stalled.
      job.picker.hasPeer(session.peerId) &&
      job.available(session) === null
    searchContent({
      job,
      session,
      random: this.#options.random,
      far: this.#far.isFar(session.peerId),
      goesOn,
      found: (runs) => {
        job.picker.gained(session.peerId, runs, this.#options.now())
        this.#pump()
      },
    }).then(
      () => {
        const again = job.searches.get(session) === true && goesOn()
        job.searches.delete(session)
        if (again) this.#search(job, session)
      },
      (error: Error) => job.fail(error),
    )
  }

  readonly #events = {
    block: (session: PeerSession<Ticket>, ticket: Ticket, content: ArrivedBlock) => {
      this.#received(session, ticket, content).catch((error: Error) => {
        if (isMeshError(error, 'PROTOCOL_VIOLATION')) this.#wrong(session, error.message)
        else ticket.job.fail(error)
      })
    },
    missing: (session: PeerSession<Ticket>, ticket: Ticket) => {
      const { job, index } = ticket
      if (job.request.level === 0) session.forget(job.root, index)
      if (job.picker.hasPeer(session.peerId)) job.picker.lost(session.peerId, [[index, index + 1]])
      job.unask(ticket)
      job.guessedWrong(session)
      this.#pump()
    },
    // Asked again at the next tick, of whoever has room then.
    busy: (_session: PeerSession<Ticket>, ticket: Ticket) => ticket.job.unask(ticket),
    have: ({ peerId }: PeerSession<Ticket>, root: string, gained: RangeSet, lost: RangeSet) => {
      for (const job of this.#jobs) {
        if (job.root !== root || job.request.level > 0 || !job.picker.hasPeer(peerId)) continue
        job.picker.lost(peerId, lost.runs())
        job.picker.gained(peerId, gained.runs(), this.#options.now())
      }
      this.#pump()
    },
    holds: (session: PeerSession<Ticket>) => {
      for (const job of this.#jobs) {
        const [had, has] = [job.picker.holdsImage(session.peerId), job.available(session) !== null]
        if (had && has) continue
        for (const ticket of session.tickets()) if (ticket.job === job) job.unask(ticket)
        this.#enlist(job, session)
      }
      this.#pump()
    },
    versions: (peerId: string, versions: MetadataVersions) => this.#options.onVersions?.(peerId, versions),
    peers: (list: readonly PeerAddresses[]) => this.#options.onPeers?.(list),
    totalRate: () => this.#sessions.all().reduce((sum, { openBytes, rate }) => sum + (openBytes > 0 ? rate : 0), 0),
  }

  async #received(session: PeerSession<Ticket>, ticket: Ticket, content: ArrivedBlock): Promise<void> {
    const { job, index } = ticket
    const { digestOf: expected, level, sparse, blockSize } = job.request
    this.#answers(session)
    // Its place is free for the next request, whatever becomes of this one.
    this.#pumpFrom(session)
    if (ticket.far) this.#far.pace?.spend(content.wireBytes - ticket.size)
    // Already delivered by somebody else, or the job is over.
    if (!this.#isOpen(ticket)) return
    if (content.kept !== undefined && !ticket.alike)
      throw new MeshError('PROTOCOL_VIOLATION', 'left out what it was not told of')
    const granules = sentGranules(content, ticket.granules, blockSize)
    let data: Uint8Array
    if (granules === undefined) data = unpackWhole(content, blockSize)
    else {
      data = await sparse!.read(index)
      unpackBlock(content, granules, data)
    }
    let digest = expected(index)
    if (digest instanceof Promise) digest = await digest
    const right = sameBytes(digestOf(data), digest)
    if (!this.#isOpen(ticket)) return
    if (right) this.#deliver(session, ticket, { data, granules, received: content.wireBytes })
    else if (content.kept !== undefined) {
      // What stands here was written meanwhile, or is not the same in spite of its check.
      job.unlike.add(index)
      job.recall(index)
      this.#pump()
    } else if (granules === undefined) {
      this.#wrong(session, `sent wrong bytes for ${level === 0 ? `block ${index}` : `page ${index} of level ${level}`}`)
    } else {
      // The peer lied, or what stands here beside the granules is wrong: the whole block will tell.
      job.doubted.set(index, { peerId: session.peerId, content, granules })
      job.recall(index)
      this.#pump()
    }
  }

  /** A peer delivers, perhaps again. */
  #answers(session: PeerSession<Ticket>): void {
    const { rate } = session
    for (const job of this.#jobs) {
      if (!job.picker.hasPeer(session.peerId)) this.#enlist(job, session)
      else if (rate > 0) job.picker.setSpeed(session.peerId, rate)
    }
  }

  #isOpen({ job, index }: Ticket): boolean {
    return this.#jobs.has(job) && job.isOpen(index)
  }

  #deliver(
    session: PeerSession<Ticket>,
    { job, index }: Ticket,
    { data, granules, received }: Pick<FetchedBlock, 'data' | 'received'> & { granules: Bitmap | undefined },
  ): void {
    this.ledger.countDelivered(session.peerId, received)
    this.#options.onReceived?.(session.peerId, job.request.level, received)
    const doubted = job.doubted.get(index)
    const neighboursWrong = doubted !== undefined && this.#judge(doubted, index, data)
    const block = { index, data, peerId: session.peerId, received }
    job.deliver(
      {
        ...block,
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
    this.ledger.countBad(peerId)
    this.#sessions.ban(peerId, `sent wrong bytes for block ${index}`)
    return false
  }

  #wrong(session: PeerSession<Ticket>, what: string): void {
    this.ledger.countBad(session.peerId)
    this.#sessions.ban(session.peerId, what)
    this.#loseSession(session)
  }

  /** Asks peers for as much as their windows allow: one request of each in turn, and not always the same one first. */
  #pump(): void {
    const rooms = this.#sessions.all().map((session) => ({ session, room: session.room() }))
    const first = Math.floor(this.#options.random() * rooms.length)
    let asking = [...rooms.slice(first), ...rooms.slice(0, first)]
    const now = this.#options.now()
    while (asking.length > 0) {
      asking = asking.filter((one) => {
        one.room -= one.room > 0 ? this.#askNext(one.session, now) : 0
        return one.room > 0
      })
    }
  }

  /** A peer has answered: it is asked for more. */
  #pumpFrom(session: PeerSession<Ticket>): void {
    let room = session.room()
    const now = this.#options.now()
    while (room > 0) room -= this.#askNext(session, now)
  }

  /** Asks a peer for one thing. Returns the bytes, or infinity if it is to be asked for nothing. */
  #askNext(session: PeerSession<Ticket>, now: number): number {
    if (this.#far.isFar(session.peerId) && !this.#far.mayAsk()) return Number.POSITIVE_INFINITY
    for (const job of this.#jobs) {
      if (!job.picker.hasPeer(session.peerId) || job.picker.pending === 0 || !job.hasRoom) continue
      const index = job.picker.next(session.peerId, now)
      if (index !== -1) return this.#ask(job, session, index, now)
    }
    return Number.POSITIVE_INFINITY
  }

  /** Returns the bytes that are asked for. */
  #ask(job: FetchJob, session: PeerSession<Ticket>, index: number, now: number): number {
    const ticket = job.ask(session, index, this.#far.isFar(session.peerId), now)
    if (ticket.far) this.#far.pace?.spend(ticket.size)
    const digest = job.request.digestOf(index)
    if (ticket.alike || digest instanceof Promise)
      Promise.all([digest, ticket.alike ? job.request.sparse!.read(index) : undefined]).then(
        ([known, here]) => this.#send(ticket, known, here === undefined ? undefined : granuleChecks(here)),
        (error: Error) => job.fail(error),
      )
    else this.#send(ticket, digest)
    return ticket.size
  }

  #send(ticket: Ticket, digest: Digest, checks?: Uint8Array): void {
    const { job, index, session, granules } = ticket
    if (!job.isAsked(ticket)) return
    const { level, blockSize } = job.request
    ticket.id = session.ask(ticket, { digest, level, index, size: blockSize, checks }, granules)
  }

  /** Looks after what no message triggers: stalled peers, missing holders, slow last requests. */
  #tick(): void {
    const now = this.#options.now()
    this.#far.tick()
    for (const session of this.#sessions.all()) this.#checkProgress(session, now)
    this.#checkFar()
    this.#checkSupply()
    this.#pump()
    for (const job of this.#jobs) {
      if (job.picker.pending === 0) this.#askTwice(job, now)
      this.#checkHolders(job, now)
    }
  }

  #checkProgress(session: PeerSession<Ticket>, now: number): void {
    if (session.openBytes === 0) return
    const silentMs = session.silentMs(now)
    const far = this.#far.isFar(session.peerId)
    const { stallDisconnectMs, progressDeadlineMs } = this.#options
    if (silentMs >= (stallDisconnectMs ?? (far ? FAR_STALL_DISCONNECT_MS : STALL_DISCONNECT_MS))) {
      session.abort(new MeshError('REQUEST_TIMEOUT', `${session.peerId} sent nothing for ${silentMs} ms`))
    } else if (
      silentMs >= (progressDeadlineMs ?? (far ? FAR_PROGRESS_DEADLINE_MS : PROGRESS_DEADLINE_MS)) &&
      !session.isStalled
    ) {
      session.stall()
      this.ledger.countStall(session.peerId)
      // Its answers are still welcome; until then others are asked for the same.
      for (const ticket of session.tickets()) ticket.job.unask(ticket)
      for (const job of this.#jobs) job.picker.suspendPeer(session.peerId, now)
    }
  }

  #checkSupply(): void {
    const lacks = ({ picker }: FetchJob): boolean => picker.pending > 0 && !picker.canServe
    this.#starves = this.#sessions.all().length > 0 && [...this.#jobs].some(lacks)
    if (this.wantsFar) this.#options.onWanting?.()
  }

  /** Far peers count while the uplink is open; they are searched when it is clear what the near ones have. */
  #checkFar(): void {
    for (const session of this.#sessions.all()) {
      if (!this.#far.isFar(session.peerId) || session.isStalled) continue
      for (const job of this.#jobs) {
        const has = job.picker.hasPeer(session.peerId)
        if (this.#far.isClosed) job.picker.removePeer(session.peerId)
        else if (!has) this.#enlist(job, session)
        else if (this.#far.mayAsk() && job.searchFar(session)) this.#search(job, session)
      }
    }
  }

  /** At the very end a slow peer's last requests are asked of a second peer that has nothing else to do. */
  #askTwice(job: FetchJob, now: number): void {
    for (const session of this.#sessions.all()) {
      if (session.openBytes > 0 || session.isStalled || !job.picker.hasPeer(session.peerId)) continue
      const index = job.picker.duplicate(session.peerId, now)
      if (index !== -1) this.#ask(job, session, index, now)
    }
  }

  #checkHolders(job: FetchJob, now: number): void {
    const { peerWaitMs, holderWaitMs } = this.#options
    const because = this.#far.isClosed ? 'the uplink is closed at this time' : undefined
    const why = whyUnavailable(job, { peers: this.#sessions.all().length, now, peerWaitMs, holderWaitMs, because })
    if (why !== undefined) job.fail(why)
  }

  #endJob(job: FetchJob): void {
    this.#jobs.delete(job)
    job.end()
    this.#far.ended(job)
    if (this.#jobs.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#starves = false
  }
}
