import type { Bitmap } from '../../../protocol/bitmap.ts'
import { toHex } from '../../../protocol/digest.ts'
import { type PackedBlock, wantedBytes } from '../../../protocol/granules.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { BlockPicker } from './block-picker.ts'
import type { FetchedBlock, FetchRequest } from './fetch-request.ts'
import { FETCH_WINDOW_BYTES, PAGE_GUESSES } from './limits.ts'
import type { PeerSession } from './session.ts'

/** What a request for some granules weighs at least, in blocks. */
const SPARSE_WEIGHT = 0.25

/** Granules of a peer that made no right block together with ours: one of the two is wrong. */
export interface Doubted {
  readonly peerId: string
  readonly content: PackedBlock
  readonly granules: Bitmap
}

/** One request for one item, on its way to or from one peer. */
export interface Ticket {
  readonly job: FetchJob
  readonly index: number
  readonly session: PeerSession<Ticket>
  /** Whether it crosses the uplink. */
  readonly far: boolean
  /** What was asked for of a block; undefined for all of it. */
  readonly granules: Bitmap | undefined
  /** The peer is told what stands here instead, and leaves out what is the same. */
  readonly alike: boolean
  /** Bytes of content that are asked for. */
  readonly size: number
  /** The request's number in the session; undefined until it is sent. */
  id: number | undefined
}

/**
 * The state of one fetch: every item is to be asked or asked (which the picker knows), waiting to be taken (`ready`), or
 * done.
 */
export class FetchJob {
  readonly root: string
  readonly request: FetchRequest
  readonly picker: BlockPicker
  readonly ready: FetchedBlock[] = []
  /** Blocks of which all is asked for, to find out whether the peer or this disk was wrong. */
  readonly doubted = new Map<number, Doubted>()
  /** Blocks that came to nothing with what stands here: all of them is asked for. */
  readonly unlike = new Set<number>()
  /** Peers with other images that are searched for this one's blocks, and whether that is to be done once more. */
  readonly searches = new Map<PeerSession<Ticket>, boolean>()
  /** Pages in a row that a peer with other images did not have. */
  readonly #wrongGuesses = new Map<string, number>()
  /** Far peers that were searched. */
  readonly #searchedFar = new Set<PeerSession<Ticket>>()
  /** What is claimed has changed. */
  onClaim: () => void = () => undefined
  /** Items that are asked of far peers, and those that came from there, with the time of that. */
  readonly #claims = new Map<number, number | undefined>()
  /** Requests that are open, by item; more than one of an item only at the very end. */
  readonly #tickets = new Map<number, Ticket[]>()
  /** Bytes asked for, and bytes waiting to be taken. */
  #askedBytes = 0
  #readyBytes = 0
  failure: Error | undefined
  /** When there last was a peer that can help. */
  helpedAt: number
  /** When an item last arrived. */
  deliveredAt: number
  #wake: (() => void) | undefined

  constructor(request: FetchRequest, self: string, random: () => number, now: number) {
    this.request = request
    this.root = toHex(request.root)
    const { wanted, blockSize, level } = request
    // Others can have pages only from whoever has all of the tree.
    this.picker = new BlockPicker({ wanted, itemBytes: blockSize, self, random, undivided: level > 0 })
    this.helpedAt = now
    this.deliveredAt = now
  }

  get isDone(): boolean {
    return this.picker.pending === 0 && this.picker.asked === 0 && this.ready.length === 0
  }

  /** Whether more may be asked for: what is under way and not yet taken is bounded. */
  get hasRoom(): boolean {
    return this.#askedBytes + this.#readyBytes < FETCH_WINDOW_BYTES
  }

  isOpen(index: number): boolean {
    return this.picker.isPending(index) || this.#tickets.has(index)
  }

  /** Granules of an item to ask for; undefined for all of it. */
  granules(index: number): Bitmap | undefined {
    return this.doubted.has(index) ? undefined : this.request.sparse?.granules(index)
  }

  /** What the peer has of it: undefined for everything, null if the peer does not hold the image. */
  available(session: PeerSession<Ticket>): Bitmap | undefined | null {
    const held = session.held(this.root)
    if (held === undefined) return null
    // Whoever has the tree has all its pages.
    return this.request.level === 0 ? held : undefined
  }

  /** An item is asked of a peer; the ticket goes with the request. */
  ask(session: PeerSession<Ticket>, index: number, far: boolean, now: number): Ticket {
    const granules = this.granules(index)
    const size = wantedBytes(granules, this.request.blockSize)
    const alike = far && granules === undefined && this.#isAlike(index)
    const ticket: Ticket = { job: this, index, session, far, granules, alike, size, id: undefined }
    this.picker.markAsked(index, session.peerId, now)
    const tickets = this.#tickets.get(index)
    if (tickets === undefined) this.#tickets.set(index, [ticket])
    else tickets.push(ticket)
    this.#askedBytes += this.#weight(ticket)
    if (far) this.#claim(index, true)
    return ticket
  }

  /** Whether a far peer is to be searched now, which is done once: it holds other images, and something is still to be asked. */
  searchFar(session: PeerSession<Ticket>): boolean {
    if (this.picker.pending === 0 || this.picker.holdsImage(session.peerId) || this.#searchedFar.has(session))
      return false
    this.#searchedFar.add(session)
    return true
  }

  /** A peer does not have what was asked for. If it does not hold the image that was a guess: it is not asked for ever. */
  guessedWrong(session: PeerSession<Ticket>): void {
    if (this.request.level === 0 || this.available(session) !== null) return
    this.#wrongGuesses.set(session.peerId, (this.#wrongGuesses.get(session.peerId) ?? 0) + 1)
    if (this.hasGivenUp(session)) this.picker.removePeer(session.peerId)
  }

  hasGivenUp({ peerId }: PeerSession<Ticket>): boolean {
    return (this.#wrongGuesses.get(peerId) ?? 0) >= PAGE_GUESSES
  }

  isAsked(ticket: Ticket): boolean {
    return this.#tickets.get(ticket.index)?.includes(ticket) === true
  }

  /** Takes back one ask; an item nobody is asked for any more is pending again. */
  unask(ticket: Ticket): void {
    const tickets = this.#tickets.get(ticket.index)
    const at = tickets?.indexOf(ticket) ?? -1
    if (tickets === undefined || at === -1) return
    tickets.splice(at, 1)
    if (tickets.length === 0) this.#tickets.delete(ticket.index)
    this.#askedBytes -= this.#weight(ticket)
    this.picker.unasked(ticket.index, ticket.session.peerId)
    if (ticket.far) this.#claim(ticket.index, false)
  }

  /** An item is no longer asked of anybody: one has answered, the others are told. It is pending again. */
  recall(index: number): void {
    for (const ticket of this.#cancel(index)) {
      this.picker.unasked(index, ticket.session.peerId)
      if (ticket.far) this.#claim(index, false)
    }
  }

  /** A verified item waits for the consumer. */
  deliver(block: FetchedBlock, now: number): void {
    this.#wrongGuesses.delete(block.peerId)
    this.#cancel(block.index)
    this.picker.delivered(block.index, block.peerId)
    if (this.#claims.has(block.index)) this.#claims.set(block.index, now)
    this.ready.push(block)
    this.#readyBytes += block.data.byteLength
    this.deliveredAt = now
    this.wake()
  }

  /** What others of the site need not ask for over the uplink. */
  claims(): RangeSet {
    return RangeSet.from([...this.#claims.keys()].map((index): [number, number] => [index, index + 1]))
  }

  /** Items that came from far peers a while ago at most. */
  readonly arrived = (): number[] => [...this.#claims].flatMap(([index, at]) => (at === undefined ? [] : [index]))

  /** What came before `time` is known to the others by now. */
  forgetClaims(time: number): void {
    for (const [index, at] of this.#claims) if (at !== undefined && at < time) this.#claims.delete(index)
  }

  /** What others have claimed as well is left to them, as far as it is still asked for. */
  yieldClaims(claimed: RangeSet): void {
    for (const [index, at] of [...this.#claims]) {
      if (at !== undefined || !claimed.has(index)) continue
      for (const ticket of [...(this.#tickets.get(index) ?? [])]) {
        if (!ticket.far) continue
        if (ticket.id !== undefined) ticket.session.cancel(ticket.id)
        this.unask(ticket)
      }
    }
  }

  /** The next verified item, for the consumer. */
  take(): FetchedBlock | undefined {
    const block = this.ready.shift()
    if (block !== undefined) this.#readyBytes -= block.data.byteLength
    return block
  }

  /** Nobody is asked for anything any more. */
  end(): void {
    for (const index of [...this.#tickets.keys()]) this.#cancel(index)
  }

  fail(error: Error): void {
    this.failure ??= error
    this.wake()
  }

  wake(): void {
    this.#wake?.()
    this.#wake = undefined
  }

  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #isAlike(index: number): boolean {
    return !this.doubted.has(index) && !this.unlike.has(index) && this.request.sparse?.isAlike?.(index) === true
  }

  #claim(index: number, asked: boolean): void {
    if (asked) this.#claims.set(index, undefined)
    else this.#claims.delete(index)
    this.onClaim()
  }

  /** A few granules become a whole block when they are here. */
  #weight({ size }: Ticket): number {
    return Math.max(size, this.request.blockSize * SPARSE_WEIGHT)
  }

  /** Those that have not answered are told that the item is not needed. */
  #cancel(index: number): Ticket[] {
    const tickets = this.#tickets.get(index) ?? []
    this.#tickets.delete(index)
    for (const ticket of tickets) {
      this.#askedBytes -= this.#weight(ticket)
      if (ticket.id !== undefined) ticket.session.cancel(ticket.id)
    }
    return tickets
  }
}
