/**
 * The folder node/exchange/ask is the asking side of the exchange: it fetches blocks and pages from many peers at once.
 * - `swarm` knows which peers there are and gives each its turn; `sessions` and `session` keep one stream to each peer, and `held-images`
 *   what it says to hold.
 * - `fetch-job` is one fetch: `block-picker` chooses whom to ask for what, `block-checker` judges what comes, `content-search` looks
 *   for the content in other images, `tickets` and `deliveries` hold what is under way and what waits to be taken.
 * - `division` and `shares` divide an image among the machines that fetch it; `holders` and `open-asks` count for the picker.
 * - `peer-window`, `compressed-link` and `compression-policy` measure a peer: how much to ask for, and whether compressed.
 *
 * Calls go down in this order; docs/ARCHITECTURE.md has the picture.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Bitmap } from '../../../protocol/bitmap.ts'
import { MeshError } from '../../../protocol/errors.ts'
import type { MetadataVersions, PeerAddresses } from '../../../protocol/message-parts.ts'
import type { RangeSet } from '../../../protocol/ranges.ts'
import { HAND_OVER_MS, HAND_OVER_TICK_MS } from '../limits.ts'
import { PeerLedger } from '../peer-ledger.ts'
import { FarSide, type FetchingMessage } from '../uplink/far-side.ts'
import { FAR_ASSUMED_LINK_RATE } from '../uplink/limits.ts'
import type { UplinkPace } from '../uplink/uplink-pace.ts'
import type { ArrivedBlock } from './compressed-link.ts'
import { FetchJob } from './fetch-job.ts'
import type { FetchedBlock, FetchRequest } from './fetch-request.ts'
import {
  FAR_PROGRESS_DEADLINE_MS,
  FAR_STALL_DISCONNECT_MS,
  FETCH_TICK_MS,
  PROGRESS_DEADLINE_MS,
  STALL_DISCONNECT_MS,
} from './limits.ts'
import type { PeerSession } from './session.ts'
import { Sessions } from './sessions.ts'
import type { NetworkFacts, SwarmDeadlines, SwarmEvents, SwarmOptions } from './swarm-options.ts'
import type { Ticket } from './ticket.ts'

/** What is known of a peer the swarm has a session with. */
interface PeerFacts {
  readonly id: string
  readonly name: string
  readonly blocks: number
  readonly bytes: number
  readonly bad: number
  readonly rate: number
  readonly stalled: boolean
}

/**
 * Fetches blocks and pages from all connected peers at once; every item is verified before it is handed on.
 *
 * When a peer has room for requests, Swarm asks the fetches, one after the other, what the peer is to be asked for. Swarm passes
 * on what peers say: an answer to the fetch that asked, news of what a peer holds to all fetches, news of what it fetches over
 * the uplink to FarSide. Every FETCH_TICK_MS Swarm looks after what no message triggers: stalled peers, items that nobody holds,
 * slow last requests.
 */
export class Swarm {
  readonly ledger = new PeerLedger()
  readonly #self: string
  readonly #now: () => number
  readonly #random: () => number
  readonly #isReluctant: (peerId: string) => boolean
  readonly #reports: Partial<SwarmEvents>
  readonly #deadlines: Partial<SwarmDeadlines>
  readonly #network: NetworkFacts | undefined
  readonly #sessions: Sessions<Ticket>
  readonly #jobs = new Set<FetchJob>()
  readonly #far: FarSide
  #timer: NodeJS.Timeout | undefined
  #starves = false

  constructor(options: SwarmOptions) {
    const {
      self,
      open,
      local,
      imageOf,
      places = {},
      events = {},
      deadlines = {},
      network,
      now = () => performance.now(),
      random = Math.random,
    } = options
    const { isFar = () => false, nearSettled = () => true, isReluctant = () => false } = places
    this.#self = self
    this.#now = now
    this.#random = random
    this.#isReluctant = isReluctant
    this.#reports = events
    this.#deadlines = deadlines
    this.#network = network
    this.#sessions = new Sessions({
      open,
      local,
      imageOf,
      now,
      ledger: this.ledger,
      events: this.#events,
      opened: (session) => {
        if (this.#far.isFar(session.peerId)) session.assumeSlow(FAR_ASSUMED_LINK_RATE)
        else this.#far.met(session)
        for (const job of this.#jobs) {
          job.metPeer()
          this.#enlist(job, session)
        }
        this.#pump()
      },
      ended: (session) => this.#loseSession(session),
      onBan: events.onBan,
    })
    this.#far = new FarSide({ self, isFar, nearSettled, sessions: () => this.#sessions.all(), now })
  }

  /** A member was connected: opens a session, and opens it again after a pause if it breaks, until it is removed. */
  addPeer(peerId: string): void {
    this.#sessions.add(peerId)
  }

  /** Other manifests are trusted now. */
  imagesChanged(): void {
    for (const session of this.#sessions.all()) session.imagesChanged()
  }

  /** A peer broke the protocol where it is served: it is neither asked nor let in for a while. `reason`: a sentence that begins with its id. */
  refuse(peerId: string, reason: string): void {
    const session = this.#sessions.of(peerId)
    this.#sessions.ban(peerId, 'violation', reason)
    if (session !== undefined) this.#loseSession(session)
  }

  removePeer(peerId: string): void {
    this.#sessions.remove(peerId)
    this.#far.gone(peerId)
  }

  /** What this machine may ask for over the uplink; undefined: all it wants. */
  limitUplink(pace: UplinkPace | undefined): void {
    this.#far.limit(pace)
  }

  /** Waits until others no longer need what came over the uplink to this machine last, for a bounded time. */
  async handOver(): Promise<void> {
    const until = this.#now() + HAND_OVER_MS
    while (this.#far.isNeeded && this.#now() < until) await sleep(HAND_OVER_TICK_MS)
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

  /** Whether something is to be fetched that no connected peer has. */
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
    const job = this.#newJob(request)
    this.#far.begin(job, request)
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
        } else await job.changed()
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

  #newJob(request: FetchRequest): FetchJob {
    const job: FetchJob = new FetchJob(request, {
      self: this.#self,
      random: this.#random,
      now: this.#now,
      reports: {
        delivered: (peerId, bytes) => {
          this.ledger.countDelivered(peerId, bytes)
          this.#reports.onReceived?.(peerId, request.level, bytes)
        },
        lied: (peerId, what) => this.#ban(peerId, what),
        reopened: () => this.#pump(),
        askedFar: (index, bytes) => {
          this.#far.asked(job, index)
          this.#far.spend(bytes)
        },
        returnedFar: (index) => this.#far.returned(job, index),
        came: (index) => this.#far.came(job, index),
      },
    })
    return job
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

  /** A fetch learns of a peer, or anew what it holds. While the uplink is closed there are no far peers. */
  #enlist(job: FetchJob, session: PeerSession<Ticket>): void {
    const { peerId } = session
    const near = !this.#far.isFar(peerId)
    const reluctant = this.#isSpared(session)
    if (!near && this.#far.isClosed) job.removePeer(peerId)
    else if (job.enlist(session, { near, reluctant })) this.#far.noticed(job)
  }

  #loseSession(session: PeerSession<Ticket>): void {
    for (const ticket of session.tickets()) ticket.owner.unask(ticket)
    for (const job of this.#jobs) job.removePeer(session.peerId)
    this.#far.gone(session.peerId)
    this.#pump()
  }

  /** A peer sent what it must not: it is never asked again, and what it was asked for is asked of others. */
  #ban(peerId: string, what: string): void {
    const session = this.#sessions.of(peerId)
    this.ledger.countBad(peerId)
    this.#sessions.ban(peerId, 'wrong', what)
    if (session !== undefined) this.#loseSession(session)
  }

  readonly #events = {
    block: (session: PeerSession<Ticket>, ticket: Ticket, content: ArrivedBlock) => {
      this.#answers(session)
      // Its place is free for the next request, whatever becomes of this one.
      this.#pumpFrom(session)
      if (ticket.far) this.#far.spend(content.wireBytes - ticket.size)
      ticket.owner.receive(ticket, content)
    },
    missing: (_session: PeerSession<Ticket>, ticket: Ticket) => {
      ticket.owner.missing(ticket)
      this.#pump()
    },
    // At the next tick the item is asked for again, of a peer that has room then.
    busy: (_session: PeerSession<Ticket>, ticket: Ticket) => ticket.owner.unask(ticket),
    have: ({ peerId }: PeerSession<Ticket>, root: string, gained: RangeSet, lost: RangeSet) => {
      for (const job of this.#jobs) job.holdingChanged(peerId, root, gained, lost)
      this.#pump()
    },
    holds: (session: PeerSession<Ticket>) => {
      for (const job of this.#jobs) if (job.unaskIfMoved(session)) this.#enlist(job, session)
      this.#pump()
    },
    versions: (peerId: string, versions: MetadataVersions) => this.#reports.onVersions?.(peerId, versions),
    peers: (peerId: string, list: readonly PeerAddresses[]) => this.#reports.onPeers?.(peerId, list),
    totalRate: () => this.#sessions.all().reduce((sum, { openBytes, rate }) => sum + (openBytes > 0 ? rate : 0), 0),
  }

  /** A peer delivers, perhaps again after it was stalled. */
  #answers(session: PeerSession<Ticket>): void {
    const { peerId, rate } = session
    for (const job of this.#jobs) {
      if (!job.hasPeer(peerId)) this.#enlist(job, session)
      else if (rate > 0) job.setSpeed(peerId, rate)
    }
  }

  /** Asks peers for as much as their windows allow: one request of each in turn, and not always the same one first. */
  #pump(): void {
    const rooms = this.#sessions.all().map((session) => ({ session, room: session.room() }))
    const first = Math.floor(this.#random() * rooms.length)
    let asking = [...rooms.slice(first), ...rooms.slice(0, first)]
    const now = this.#now()
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
    const now = this.#now()
    while (room > 0) room -= this.#askNext(session, now)
  }

  /** Asks a peer for one thing. Returns the bytes, or infinity if the peer is to be asked for nothing. */
  #askNext(session: PeerSession<Ticket>, now: number): number {
    const far = this.#far.isFar(session.peerId)
    if (far && !this.#far.mayAsk()) return Number.POSITIVE_INFINITY
    for (const job of this.#jobs) {
      const bytes = job.askNext(session, far, now)
      if (bytes !== undefined) return bytes
    }
    return Number.POSITIVE_INFINITY
  }

  /** Looks after what no message triggers: stalled peers, missing holders, slow last requests. */
  #tick(): void {
    const now = this.#now()
    this.#far.tick()
    for (const session of this.#sessions.all()) {
      this.#checkProgress(session, now)
      this.#checkStanding(session, now)
    }
    this.#checkFar()
    this.#checkWants()
    this.#pump()
    for (const job of this.#jobs) {
      this.#askTwice(job, now)
      this.#checkSupply(job)
    }
  }

  #checkProgress(session: PeerSession<Ticket>, now: number): void {
    if (session.openBytes === 0) return
    const { peerId } = session
    const silentMs = session.silentMs(now)
    const far = this.#far.isFar(peerId)
    const {
      stallDisconnectMs = far ? FAR_STALL_DISCONNECT_MS : STALL_DISCONNECT_MS,
      progressDeadlineMs = far ? FAR_PROGRESS_DEADLINE_MS : PROGRESS_DEADLINE_MS,
    } = this.#deadlines
    if (silentMs >= stallDisconnectMs) {
      session.abort(new MeshError('REQUEST_TIMEOUT', `${peerId} sent nothing for ${silentMs} ms`))
    } else if (silentMs >= progressDeadlineMs && !session.isStalled) {
      session.stall()
      this.ledger.count(peerId, 'silent')
      // Its answers are still welcome; until they come others are asked for the same.
      for (const ticket of session.tickets()) ticket.owner.unask(ticket)
      for (const job of this.#jobs) job.suspendPeer(peerId)
    }
  }

  /** Who has become slow is asked like the master, and keeps nobody from asking the master. */
  #checkStanding(session: PeerSession<Ticket>, now: number): void {
    const { peerId } = session
    if (session.isStalled || this.#far.isFar(peerId) || !session.lookAtStanding(now)) return
    if (session.isDoubtful) this.ledger.count(peerId, session.isPuttingOff ? 'busy' : 'slow')
    for (const job of this.#jobs) if (job.hasPeer(peerId)) job.setReluctant(peerId, this.#isSpared(session))
  }

  /** Whether a peer is asked only for what no more willing one has. */
  #isSpared({ peerId, isDoubtful }: PeerSession<Ticket>): boolean {
    return isDoubtful || this.#isReluctant(peerId)
  }

  /** Far peers count while the uplink is open; they are searched when it is clear what the near ones have. */
  #checkFar(): void {
    for (const session of this.#sessions.all()) {
      if (!this.#far.isFar(session.peerId) || session.isStalled) continue
      for (const job of this.#jobs) {
        if (this.#far.isClosed) job.removePeer(session.peerId)
        else if (!job.hasPeer(session.peerId)) this.#enlist(job, session)
        else if (this.#far.mayAsk()) job.searchFar(session)
      }
    }
  }

  /** Says when something is to be fetched that nobody near has. */
  #checkWants(): void {
    this.#starves = this.#sessions.all().length > 0 && [...this.#jobs].some(({ starves }) => starves)
    if (this.wantsFar) this.#reports.onWanting?.()
  }

  /** At the very end a slow peer's last requests are asked of a second peer that has nothing else to do. */
  #askTwice(job: FetchJob, now: number): void {
    for (const session of this.#sessions.all())
      if (session.openBytes === 0 && !session.isStalled) job.askTwice(session, this.#far.isFar(session.peerId), now)
  }

  #checkSupply(job: FetchJob): void {
    const { peerWaitMs, holderWaitMs } = this.#deadlines
    const because = this.#network?.fault() ?? (this.#far.isClosed ? 'the uplink is closed at this time' : undefined)
    const isComing = this.#network?.isComing() === true
    job.checkSupply({ peers: this.#sessions.all().length, peerWaitMs, holderWaitMs, isComing, because })
  }
}
