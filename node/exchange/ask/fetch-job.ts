import { Bitmap } from '../../../protocol/bitmap.ts'
import { type Digest, toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { granuleChecks } from '../../../protocol/granules.ts'
import type { RangeSet } from '../../../protocol/ranges.ts'
import type { FarFetch } from '../uplink/far-side.ts'
import { BlockChecker, type Verdict } from './block-checker.ts'
import { BlockPicker } from './block-picker.ts'
import type { ArrivedBlock } from './compressed-link.ts'
import { ContentSearch } from './content-search.ts'
import { Deliveries } from './deliveries.ts'
import type { FetchedBlock, FetchRequest } from './fetch-request.ts'
import { FETCH_WINDOW_BYTES, FIND_HOLDERS, PAGE_GUESSES } from './limits.ts'
import type { PeerSession } from './session.ts'
import type { Ticket, TicketOwner } from './ticket.ts'
import { Tickets } from './tickets.ts'
import { type SupplyFacts, whyUnavailable } from './unavailable.ts'

/** A request for few granules weighs at least this part of a block: when the granules are here they become a whole block. */
const SPARSE_WEIGHT = 0.25

/** What a fetch reports; Swarm listens. */
interface FetchReports {
  /** A peer delivered an item that is right; `bytes` of content came for it. */
  readonly delivered: (peerId: string, bytes: number) => void
  /** A peer sent what it must not send; `what` is the rest of a sentence that begins with its name. */
  readonly lied: (peerId: string, what: string) => void
  /** Something that was asked for is to be asked for again, or a peer has more than was known. */
  readonly reopened: () => void
  /** An item is asked for over the uplink, so many bytes of content. */
  readonly askedFar: (index: number, bytes: number) => void
  /** An item is no longer asked for over the uplink, and did not come. */
  readonly returnedFar: (index: number) => void
  /** An item is here; any peer may have sent it. */
  readonly came: (index: number) => void
}

interface FetchJobOptions {
  /** Peer id of this machine. */
  readonly self: string
  /** In [0, 1). */
  readonly random: () => number
  /** Milliseconds of any clock. */
  readonly now: () => number
  readonly reports: FetchReports
}

/** How a peer stands to this machine. */
interface PeerPlace {
  /** Whether the peer is on this side of the uplink. */
  readonly near: boolean
  /** Whether the peer is asked only for what no other has. */
  readonly reluctant: boolean
}

/**
 * One fetch: which peers it may ask, what it has asked them, and what has come. Each wanted item is pending or asked, which
 * BlockPicker knows; or it is verified and waits for the consumer; or it is done.
 */
export class FetchJob implements FarFetch, TicketOwner {
  /** Root of the image in hexadecimal. */
  readonly root: string
  readonly #request: FetchRequest
  readonly #now: () => number
  readonly #reports: FetchReports
  readonly #picker: BlockPicker
  readonly #checker: BlockChecker
  readonly #search: ContentSearch
  readonly #tickets = new Tickets()
  readonly #deliveries = new Deliveries()
  /** How many pages in a row a peer with other images did not have. */
  readonly #wrongGuesses = new Map<string, number>()
  /** Far peers that were searched. */
  readonly #searchedFar = new Set<PeerSession<Ticket>>()
  /** When there last was a peer that could be asked for something, or something was asked. */
  #helpedAt: number
  /** When an item last came. */
  #deliveredAt: number
  #over = false

  constructor(request: FetchRequest, { self, random, now, reports }: FetchJobOptions) {
    const { root, wanted, blockSize, level } = request
    this.root = toHex(root)
    this.#request = request
    this.#now = now
    this.#reports = reports
    // Pages can be had only from a machine that has all of the tree, so one machine of the site fetches them all.
    this.#picker = new BlockPicker({ wanted, itemBytes: blockSize, self, random, undivided: level > 0 })
    this.#checker = new BlockChecker(request)
    this.#search = new ContentSearch({
      request,
      random,
      isSought: (index, far) => this.#isSought(index, far),
      goesOn: (session) => this.#mayFindAt(session),
      found: ({ peerId }, runs) => {
        this.#picker.gained(peerId, runs, now())
        reports.reopened()
      },
      failed: (error) => this.fail(error),
    })
    this.#helpedAt = now()
    this.#deliveredAt = now()
  }

  // What the consumer takes.

  /** Whether all items were taken. */
  get isDone(): boolean {
    return this.#missing === 0 && this.#deliveries.isEmpty
  }

  /** Whether more may be asked for: what is under way and what is not yet taken is bounded together. */
  get hasRoom(): boolean {
    return this.#tickets.weight + this.#deliveries.bytes < FETCH_WINDOW_BYTES
  }

  /** The next verified item; undefined if none waits. Errors: what the fetch failed with, once no item waits. */
  take(): FetchedBlock | undefined {
    return this.#deliveries.take()
  }

  /** Resolves when an item comes or the fetch fails. */
  changed(): Promise<void> {
    return this.#deliveries.changed()
  }

  fail(error: Error): void {
    this.#deliveries.fail(error)
  }

  /** Takes back all requests; what arrives from now on is of no use. */
  end(): void {
    this.#over = true
    for (const index of this.#tickets.items()) this.#tickets.cancel(index)
  }

  // Which peers it may ask.

  hasPeer(peerId: string): boolean {
    return this.#picker.hasPeer(peerId)
  }

  /** Learns of a peer, or anew what it holds. Returns whether the peer may be asked for something, now or later. */
  enlist(session: PeerSession<Ticket>, place: PeerPlace): boolean {
    const { peerId, rate } = session
    this.#picker.removePeer(peerId)
    const have = this.#held(session)
    if (have !== null) this.#picker.addPeer(peerId, { have, ...place }, this.#now())
    else if (!this.#guess(session, place)) return false
    if (rate > 0) this.#picker.setSpeed(peerId, rate)
    return true
  }

  /** A session with a peer was opened: what the peer holds is told in a moment, and waited for anew. */
  metPeer(): void {
    this.#helpedAt = this.#now()
  }

  /** A peer holds other images than before. Returns whether it is to be enlisted anew: it holds this image now, or no longer. */
  unaskIfMoved(session: PeerSession<Ticket>): boolean {
    if (this.#picker.holdsImage(session.peerId) && this.#held(session) !== null) return false
    for (const ticket of session.tickets()) if (ticket.owner === this) this.unask(ticket)
    return true
  }

  /** A peer is not to be asked any more; what it was asked for is pending again. */
  removePeer(peerId: string): void {
    this.#picker.removePeer(peerId)
  }

  /** A peer is not to be asked for the moment, but may go on. */
  suspendPeer(peerId: string): void {
    this.#picker.suspendPeer(peerId, this.#now())
  }

  /** A near peer is asked only for what no more willing peer has, from now on, or no longer. */
  setReluctant(peerId: string, reluctant: boolean): void {
    this.#picker.setReluctant(peerId, reluctant)
  }

  /** What a peer delivers, bytes per second. */
  setSpeed(peerId: string, bytesPerSecond: number): void {
    this.#picker.setSpeed(peerId, bytesPerSecond)
  }

  /** A peer gained and lost blocks of an image. */
  holdingChanged(peerId: string, root: string, gained: RangeSet, lost: RangeSet): void {
    if (root !== this.root || this.#request.level > 0 || !this.hasPeer(peerId)) return
    this.#picker.lost(peerId, lost.runs())
    this.#picker.gained(peerId, gained.runs(), this.#now())
  }

  /** Searches a far peer that holds other images, once, if something is still to be asked. */
  searchFar(session: PeerSession<Ticket>): void {
    const { pending } = this.#picker
    if (pending === 0 || this.#picker.holdsImage(session.peerId) || this.#searchedFar.has(session)) return
    this.#searchedFar.add(session)
    this.#search.start(session, true)
  }

  /** Whether something is to be asked that no peer has. */
  get starves(): boolean {
    return this.#picker.pending > 0 && !this.#picker.canServe
  }

  /** Fails the fetch if nobody can bring what is missing. */
  checkSupply(facts: SupplyFacts): void {
    const now = this.#now()
    const idle = this.#deliveries.isEmpty && this.#missing > 0
    const helpless = idle && this.#picker.asked === 0 && !this.#picker.canServe
    if (!helpless) this.#helpedAt = now
    const supply = {
      level: this.#request.level,
      missing: this.#missing,
      indices: this.#picker.left(),
      dryMs: idle ? now - this.#deliveredAt : undefined,
      helplessMs: helpless ? now - this.#helpedAt : undefined,
    }
    const why = whyUnavailable(supply, facts)
    if (why !== undefined) this.fail(why)
  }

  // What it asks them.

  /** Asks a peer for one item. Returns the bytes of content that are asked for; undefined: nothing is. */
  askNext(session: PeerSession<Ticket>, far: boolean, now: number): number | undefined {
    if (!this.hasPeer(session.peerId) || this.#picker.pending === 0 || !this.hasRoom) return undefined
    return this.#ask(session, this.#picker.pick(session.peerId, now), far, now)
  }

  /** At the very end: asks an idle peer for an item that a slower peer was asked for long ago. */
  askTwice(session: PeerSession<Ticket>, far: boolean, now: number): void {
    if (!this.hasPeer(session.peerId) || this.#picker.pending > 0) return
    this.#ask(session, this.#picker.duplicate(session.peerId, now), far, now)
  }

  receive(ticket: Ticket, content: ArrivedBlock): void {
    this.#check(ticket, content).catch((error: Error) => {
      if (isMeshError(error, 'PROTOCOL_VIOLATION')) this.#reports.lied(ticket.session.peerId, error.message)
      else this.fail(error)
    })
  }

  missing(ticket: Ticket): void {
    const { session, index } = ticket
    if (this.#request.level === 0) session.forget(this.root, index)
    if (this.hasPeer(session.peerId)) this.#picker.lost(session.peerId, [[index, index + 1]])
    this.unask(ticket)
    this.#countWrongGuess(session)
  }

  unask(ticket: Ticket): void {
    if (!this.#tickets.remove(ticket)) return
    this.#picker.unasked(ticket.index, ticket.session.peerId)
    if (ticket.far) this.#reports.returnedFar(ticket.index)
  }

  // What fellows of the site do.

  setFetchesFromFar(peerId: string, fetches: boolean): void {
    this.#picker.setFetchesFromFar(peerId, fetches)
  }

  setClaims(peerId: string, claimed: RangeSet, at: number): void {
    this.#picker.setClaims(peerId, claimed, at)
  }

  leaveToOthers(index: number): void {
    for (const ticket of this.#tickets.of(index)) {
      if (!ticket.far) continue
      if (ticket.id !== undefined) ticket.session.cancel(ticket.id)
      this.unask(ticket)
    }
  }

  /** Items that have not come. */
  get #missing(): number {
    return this.#picker.pending + this.#picker.asked
  }

  #isOpen(index: number): boolean {
    return !this.#over && (this.#picker.isPending(index) || this.#tickets.of(index).length > 0)
  }

  /** What a peer has of what is wanted: undefined for everything; null if it does not hold the image. */
  #held(session: PeerSession<Ticket>): Bitmap | undefined | null {
    const held = session.held(this.root)
    if (held === undefined) return null
    // A machine that has the tree has all its pages.
    return this.#request.level === 0 ? held : undefined
  }

  /**
   * Learns of a peer that holds other images. The peer is searched for blocks of this image; it is asked for pages without a
   * search. Returns false if the peer has none.
   */
  #guess(session: PeerSession<Ticket>, place: PeerPlace): boolean {
    const pages = this.#request.level > 0
    if (!session.holdsAny || (pages && (!place.near || this.#hasGivenUp(session)))) return false
    const have = new Bitmap(this.#request.wanted.length)
    if (pages) have.setRange(0, have.length)
    this.#picker.addPeer(session.peerId, { have, elsewhere: true, ...place }, this.#now())
    if (place.near && !pages) this.#search.start(session, false)
    return true
  }

  /** A near peer is asked for blocks that few machines are known to have, a far one for what this machine fetches there. */
  #isSought(index: number, far: boolean): boolean {
    if (!this.#picker.isPending(index)) return false
    return far ? this.#picker.isForFar(index) : this.#picker.holdersOf(index) < FIND_HOLDERS
  }

  /** While a peer is stalled it is not searched: the picker does not have it then. */
  #mayFindAt(session: PeerSession<Ticket>): boolean {
    return !this.#over && !session.isOver && this.hasPeer(session.peerId) && this.#held(session) === null
  }

  /** A peer with other images that lacks PAGE_GUESSES pages in a row is asked for no more. */
  #countWrongGuess(session: PeerSession<Ticket>): void {
    if (this.#request.level === 0 || this.#held(session) !== null) return
    this.#wrongGuesses.set(session.peerId, (this.#wrongGuesses.get(session.peerId) ?? 0) + 1)
    if (this.#hasGivenUp(session)) this.#picker.removePeer(session.peerId)
  }

  #hasGivenUp({ peerId }: PeerSession<Ticket>): boolean {
    return (this.#wrongGuesses.get(peerId) ?? 0) >= PAGE_GUESSES
  }

  #ask(session: PeerSession<Ticket>, index: number, far: boolean, now: number): number | undefined {
    if (index === -1) return undefined
    const portion = this.#checker.portion(index, far)
    const weight = Math.max(portion.size, this.#request.blockSize * SPARSE_WEIGHT)
    const ticket: Ticket = { ...portion, owner: this, index, session, far, weight, id: undefined }
    this.#picker.markAsked(index, session.peerId, now)
    this.#tickets.add(ticket)
    if (far) this.#reports.askedFar(index, ticket.size)
    this.#send(ticket)
    return ticket.size
  }

  /** Sends a request, after its digest and the checks of what stands here were read where that takes time. */
  #send(ticket: Ticket): void {
    const { index, alike } = ticket
    const digest = this.#request.digestOf(index)
    if (!alike && !(digest instanceof Promise)) {
      this.#post(ticket, digest)
      return
    }
    Promise.all([digest, alike ? this.#request.sparse!.read(index) : undefined]).then(
      ([known, here]) => this.#post(ticket, known, here === undefined ? undefined : granuleChecks(here)),
      (error: Error) => this.fail(error),
    )
  }

  #post(ticket: Ticket, digest: Digest, checks?: Uint8Array): void {
    if (!this.#tickets.has(ticket)) return
    const { level, blockSize } = this.#request
    const { session, index, granules } = ticket
    ticket.id = session.ask(ticket, { digest, level, index, size: blockSize, checks }, granules)
  }

  /** Somebody else may have delivered the item, or the fetch may have ended, while the answer was under way or was checked. */
  async #check(ticket: Ticket, content: ArrivedBlock): Promise<void> {
    const { index, session } = ticket
    if (!this.#isOpen(index)) return
    const verdict = await this.#checker.check(session.peerId, index, ticket, content)
    if (!this.#isOpen(index)) return
    if (verdict.is === 'right') this.#deliver(ticket, verdict, content.wireBytes)
    else if (verdict.is === 'wrong') this.#reports.lied(session.peerId, this.#wrongBytes(index))
    else {
      this.#recall(index)
      this.#reports.reopened()
    }
  }

  #deliver(ticket: Ticket, verdict: Extract<Verdict, { is: 'right' }>, received: number): void {
    const { index, session } = ticket
    const { data, granules, neighboursWrong, liar } = verdict
    const { peerId } = session
    this.#reports.delivered(peerId, received)
    this.#wrongGuesses.delete(peerId)
    this.#tickets.cancel(index)
    this.#picker.delivered(index, peerId)
    this.#reports.came(index)
    this.#deliveredAt = this.#now()
    const parts = granules === undefined ? {} : { granules }
    const wrong = neighboursWrong ? { neighboursWrong } : {}
    this.#deliveries.push({ index, data, peerId, received, ...parts, ...wrong })
    if (liar !== undefined) this.#reports.lied(liar, this.#wrongBytes(index))
  }

  /** An item is no longer asked of anybody: one peer has answered, the others are told. */
  #recall(index: number): void {
    for (const ticket of this.#tickets.cancel(index)) {
      this.#picker.unasked(index, ticket.session.peerId)
      if (ticket.far) this.#reports.returnedFar(index)
    }
  }

  #wrongBytes(index: number): string {
    const { level } = this.#request
    return `sent wrong bytes for ${level === 0 ? `block ${index}` : `page ${index} of level ${level}`}`
  }
}
