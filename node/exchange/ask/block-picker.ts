import assert from 'node:assert/strict'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { LazyCounts } from '../lazy-counts.ts'
import { Claims } from '../uplink/claims.ts'
import { farWindow } from '../uplink/far-window.ts'
import { Division } from './division.ts'
import { IndexSet } from './index-set.ts'
import {
  CLAIM_LIFE_MS,
  DUPLICATE_FACTOR,
  DUPLICATE_SAMPLE,
  ENDGAME_AGE_MS,
  FETCHER_SILENT_MS,
  PICK_PROBES,
  PICK_SAMPLE,
  SHARE_GROUPS,
  SOURCE_ONLY_SHARE,
  STRAY_ITEMS,
  UNKNOWN_BYTES_PER_SECOND,
} from './limits.ts'
import { type Ask, type PickerPeer, peerHas } from './picker-peer.ts'

export interface BlockPickerOptions {
  /** Items to fetch; the caller keeps it, the picker works on a copy. */
  readonly wanted: Bitmap
  /** Bytes of one item. */
  readonly itemBytes: number
  /** This machine's peer id, under which it has its share. */
  readonly self: string
  /** In [0, 1). */
  readonly random: () => number
  /** What far peers have is fetched by one machine of the site, all of it (@default false: each its share). */
  readonly undivided?: boolean
}

/** What a peer behind the uplink costs. */
const FAR = 2

type Range = readonly [start: number, end: number]

/**
 * Chooses what one fetch asks of whom. Every wanted item is pending, asked of one peer or (at the very end) two, or
 * delivered. Pure: the caller tells what happens, at what time (milliseconds of any clock), and gives the random numbers.
 *
 * The rules, of which docs/decisions/0010-picker.md tells why:
 * - Of what a peer has, the item is asked that the fewest machines have; among equals the one behind the last.
 * - A source (a peer that had what is wanted when it came, and gains nothing) is asked for what only sources have, and of
 *   that for this machine's share. Other machines' shares are asked for only when all of the own one is, one at a time.
 * - That holds while there are fewer sources than machines that fetch, and much that only sources have.
 * - A reluctant peer is asked for what no more willing one has.
 * - A far peer, which is behind the uplink, is asked for what no near one has, and no machine of the site that fetches over
 *   the uplink as well has claimed; of that for this machine's share first, as with sources; and for nothing twice.
 *
 * A choice looks at a bounded number of items, however large the image.
 */
export class BlockPicker {
  readonly #wanted: Bitmap
  readonly #itemBytes: number
  readonly #random: () => number
  readonly #undivided: boolean
  readonly #peers = new Map<string, PickerPeer>()
  readonly #pending: IndexSet
  /** Pending items that no near peer has but sources, among the near peers that fetch. */
  readonly #near: Division
  /** Pending items that no near peer has or claims, among the machines that fetch over the uplink. */
  readonly #far: Division
  readonly #claims: Claims
  readonly #asked = new Map<number, Ask[]>()
  /** How many peers of each cost, sources left out, have an item. */
  readonly #holders: readonly LazyCounts[]
  /** Near ones. */
  #sources = 0
  /** Items that are asked of far peers. */
  #askedFar = 0
  #membersCheckedAt = Number.NEGATIVE_INFINITY
  #looked = 0

  constructor({ wanted, itemBytes, self, random, undivided = false }: BlockPickerOptions) {
    this.#wanted = wanted.copy()
    this.#itemBytes = itemBytes
    this.#random = random
    this.#undivided = undivided
    this.#pending = IndexSet.of(wanted)
    const groupItems = Math.ceil(wanted.length / SHARE_GROUPS)
    this.#near = new Division({ self, wanted, groupItems })
    this.#far = new Division({
      self,
      wanted,
      groupItems: undivided ? wanted.length : groupItems,
    })
    this.#claims = new Claims(wanted.length, (index) => this.#checkFar(index))
    this.#holders = [0, 1, 2].map(() => new LazyCounts(wanted.length))
  }

  /** Items that are to be asked. */
  get pending(): number {
    return this.#pending.size
  }

  /** Items that are asked of somebody. */
  get asked(): number {
    return this.#asked.size
  }

  /** Items looked at since the beginning, for tests of the cost. */
  get looked(): number {
    return this.#looked
  }

  /** Whether a peer holds (part of) the image itself. */
  holdsImage(id: string): boolean {
    return this.#peers.get(id)?.elsewhere === false
  }

  hasPeer(id: string): boolean {
    return this.#peers.has(id)
  }

  isPending(index: number): boolean {
    return this.#pending.has(index)
  }

  /** Whom an item is asked of. */
  askersOf(index: number): string[] {
    return (this.#asked.get(index) ?? []).map(({ peer }) => peer.id)
  }

  /** Items that were not delivered yet, those that nobody was asked for first. */
  *left(): Generator<number> {
    yield* this.#pending.values()
    yield* this.#asked.keys()
  }

  /** Whether some peer has something that is to be asked. */
  get canServe(): boolean {
    for (const peer of this.#peers.values()) if ((peer.options ?? this.#pending).size > 0) return true
    return false
  }

  /** How many peers have an item, those left out that had all (or most) of what is wanted from the beginning. */
  holdersOf(index: number): number {
    return this.#holders.reduce((sum, holders) => sum + holders.get(index), 0)
  }

  isOwn(index: number): boolean {
    return this.#near.isOwn(index)
  }

  /** Whether an item is this machine's to fetch from far peers, since no near one has it. */
  isForFar(index: number): boolean {
    return this.#far.own.has(index) && this.#nobodyFor(index, FAR)
  }

  /**
   * A peer holds (part of) the image. `have`: which items; undefined: all. A copy is taken. `elsewhere`: it does not hold the
   * image but others, and has what is found there by content.
   */
  addPeer(
    id: string,
    options: { readonly have: Bitmap | undefined; readonly elsewhere?: boolean; readonly near?: boolean },
    now: number,
  ): void {
    const { have, elsewhere = false, near = true } = options
    assert(!this.#peers.has(id), `${id} is added twice`)
    this.#claims.resume(id)
    const part = have === undefined || (have.count === have.length && !elsewhere) ? undefined : have.copy()
    const peer: PickerPeer = {
      id,
      have: part,
      options: undefined,
      isSource: !elsewhere,
      elsewhere,
      isMember: false,
      cost: near ? 0 : FAR,
      near,
      reluctant: false,
      gainedAt: now,
      bytesPerSecond: undefined,
      asked: 0,
      cursor: -1,
    }
    this.#peers.set(id, peer)
    if (peer.isSource) this.#countSource(peer, 1)
    else if (part !== undefined) this.#countAll(peer, 1)
    if (part === undefined) return
    peer.options = this.#pendingOf(part)
    // Who lacks most of what is wanted here is fetching it as well.
    if (!elsewhere && peer.options.size * 2 < this.#pending.size) this.#joins(peer, now)
  }

  /** A peer has more items; ranges are half-open. */
  gained(id: string, ranges: Iterable<Range>, now: number): void {
    const peer = this.#peer(id)
    const { have, options } = peer
    if (have === undefined || options === undefined) return
    let more = false
    for (const [start, end] of ranges) {
      for (let i = start; i < end; i++) {
        if (!have.set(i)) continue
        more = true
        if (!this.#wanted.has(i)) continue
        if (this.#pending.has(i)) options.add(i)
        if (!peer.isSource) this.#count(peer, i, 1)
      }
    }
    if (!more || peer.elsewhere) return
    if (have.count < have.length) this.#joins(peer, now)
    else this.#leaves(peer)
  }

  /** A peer no longer has some items: its disk was written, or it answered that they are missing. */
  lost(id: string, ranges: Iterable<Range>): void {
    const peer = this.#peer(id)
    if (peer.have === undefined) {
      peer.have = new Bitmap(this.#wanted.length)
      peer.have.setRange(0, peer.have.length)
      peer.options = this.#pendingOf(peer.have)
    }
    for (const [start, end] of ranges) {
      for (let i = start; i < end; i++) {
        if (!peer.have.clear(i) || !this.#wanted.has(i)) continue
        peer.options!.delete(i)
        if (!peer.isSource) this.#count(peer, i, -1)
      }
    }
  }

  /** A near peer is not to be asked now, but may go on: what it has is not fetched from far meanwhile. */
  suspendPeer(id: string, now: number): void {
    const peer = this.#peers.get(id)
    this.removePeer(id)
    if (peer?.near !== true) return
    this.#claims.suspend(id, peer.have?.toRanges() ?? RangeSet.of(0, this.#wanted.length), now)
  }

  /** A peer is gone; what it was asked for is pending again. */
  removePeer(id: string): void {
    this.#claims.resume(id)
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    for (const index of [...this.#asked.keys()]) this.unasked(index, id)
    this.#leaves(peer)
    if (peer.isSource) this.#countSource(peer, -1)
    else this.#countAll(peer, -1)
    this.#peers.delete(id)
  }

  /** What a peer delivers, as measured. */
  setSpeed(id: string, bytesPerSecond: number): void {
    this.#peer(id).bytesPerSecond = bytesPerSecond
  }

  /** Whether a peer is on this machine's network; it is until told otherwise. */
  setNear(id: string, near: boolean): void {
    const peer = this.#peer(id)
    if (peer.near === near) return
    if (!near) this.#leaves(peer)
    this.#askedFar += near ? -peer.asked : peer.asked
    if (peer.isSource) this.#countSource(peer, -1)
    peer.near = near
    if (peer.isSource) this.#countSource(peer, 1)
    this.#setCost(peer)
  }

  /** Whether a peer is the last to be asked for anything. */
  setReluctant(id: string, reluctant: boolean): void {
    const peer = this.#peer(id)
    peer.reluctant = reluctant
    this.#setCost(peer)
  }

  /** A near machine fetches the same over the uplink, or no longer does: then its claims are void. It need not be a peer. */
  setFetchesFromFar(id: string, fetches: boolean): void {
    if (fetches === this.#claims.isMachine(id)) return
    this.#claims[fetches ? 'begin' : 'end'](id)
    this.#far[fetches ? 'join' : 'leave'](id)
  }

  /** What a near machine that fetches over the uplink has asked for there. */
  setClaims(id: string, claimed: RangeSet, now: number): void {
    this.#claims.replace(id, claimed, now)
  }

  /** What to ask a peer for next, or -1. Changes nothing; what is really asked for is told by {@link markAsked}. */
  next(id: string, now: number): number {
    const peer = this.#peer(id)
    this.#checkMembers(now)
    const options = peer.options ?? this.#pending
    if (options.size === 0) return -1
    if (!peer.near)
      return this.#askedFar < farWindow(this.#itemBytes, this.#undivided ? 1 : this.#far.members)
        ? this.#nextOf(this.#far, peer, this.#undivided)
        : -1
    if (!peer.isSource) return this.#pick(peer, options, peer.cursor)
    if (this.#sparesSources) return this.#nextOf(this.#near, peer, false)
    return this.#pick(peer, peer.cost === 0 ? options : this.#near.items, peer.cursor)
  }

  /** An item is asked of a peer. */
  markAsked(index: number, id: string, now: number): void {
    const peer = this.#peer(id)
    const asks = this.#asked.get(index)
    assert(asks === undefined ? this.#pending.has(index) : !asks.some((ask) => ask.peer === peer), `item ${index}`)
    if (asks === undefined) {
      this.#asked.set(index, [{ peer, at: now }])
      this.#setPending(index, false)
    } else asks.push({ peer, at: now })
    this.#countAsked(peer, 1)
    peer.cursor = index + 1
  }

  /** A peer will not deliver an item; it is pending again unless somebody else is asked for it. */
  unasked(index: number, id: string): void {
    const asks = this.#asked.get(index)
    const at = asks?.findIndex(({ peer }) => peer.id === id) ?? -1
    if (asks === undefined || at === -1) return
    this.#countAsked(asks[at]!.peer, -1)
    asks.splice(at, 1)
    if (asks.length > 0) return
    this.#asked.delete(index)
    this.#setPending(index, true)
  }

  /** An item is here and right. Returns who is still asked for it. */
  delivered(index: number, from: string): string[] {
    const asks = this.#asked.get(index) ?? []
    for (const { peer } of asks) this.#countAsked(peer, -1)
    this.#asked.delete(index)
    if (this.#pending.has(index)) this.#setPending(index, false)
    return asks.map(({ peer }) => peer.id).filter((id) => id !== from)
  }

  /** An item asked of another peer that this one can bring much sooner, or -1. Only when nothing else can be asked. */
  duplicate(id: string, now: number): number {
    const peer = this.#peer(id)
    // What crosses the uplink crosses it once.
    if (!peer.near || this.canServe) return -1
    let left = DUPLICATE_SAMPLE
    for (const [index, asks] of this.#asked) {
      if (left-- === 0) return -1
      const [first] = asks
      if (asks.length !== 1 || first === undefined || first.peer === peer || peer.cost > first.peer.cost) continue
      const age = now - first.at
      if (age < ENDGAME_AGE_MS || !peerHas(peer, index)) continue
      const expected = Math.max(age, this.#msFor(first.peer, first.peer.asked))
      if (expected > DUPLICATE_FACTOR * this.#msFor(peer, peer.asked + 1)) return index
    }
    return -1
  }

  get #sparesSources(): boolean {
    return this.#sources < this.#near.members && this.#near.items.size > this.#pending.size * SOURCE_ONLY_SHARE
  }

  #msFor(peer: PickerPeer, items: number): number {
    return (items * this.#itemBytes * 1000) / (peer.bytesPerSecond ?? UNKNOWN_BYTES_PER_SECOND)
  }

  /** Of the own share; when all of it is asked one at a time of the others', unless that is never done. */
  #nextOf(division: Division, peer: PickerPeer, ownOnly: boolean): number {
    const own = division.nextOwn((index) => {
      this.#looked++
      return this.#mayAsk(peer, index)
    })
    if (own !== -1 || ownOnly || (peer.near ? peer.asked : this.#askedFar) >= STRAY_ITEMS) return own
    // At the end all others would ask for the same, and it would cross the uplink for each.
    if (!peer.near && division.inherited.size === 0) return -1
    // Owners begin at the start of the image, so others take from behind, each somewhere else.
    const others = division.inherited.size > 0 ? division.inherited : division.items
    const low = others.next(0)
    const start = low + Math.floor((this.#wanted.length - low) * this.#random())
    return this.#pick(peer, others, start)
  }

  /** The rarest of what is seen from `start` (-1: anywhere) and from a few other places. */
  #pick(peer: PickerPeer, from: IndexSet, start: number): number {
    const seesAll = from.size <= PICK_PROBES * PICK_SAMPLE
    const holders = this.#holders[peer.cost]!
    const least = peer.isSource ? 0 : 1
    let best = -1
    let fewest = Number.POSITIVE_INFINITY
    for (let probe = 0; probe < (seesAll ? 1 : PICK_PROBES) && fewest > least; probe++) {
      const anywhere = probe > 0 || start === -1
      let at = from.nextAround(anywhere ? Math.floor(this.#random() * from.length) : start)
      for (let left = seesAll ? from.size : PICK_SAMPLE; left > 0 && at !== -1 && fewest > least; left--) {
        this.#looked++
        const count = holders.get(at)
        if (count < fewest && this.#mayAsk(peer, at)) {
          fewest = count
          best = at
        }
        at = from.nextAround(at + 1)
      }
    }
    return best
  }

  /** Whether the peer has an item, and nobody who costs less has it. */
  #mayAsk(peer: PickerPeer, index: number): boolean {
    return peerHas(peer, index) && (peer.cost === 0 || this.#nobodyFor(index, peer.cost))
  }

  /** Whether nobody has an item who costs less. */
  #nobodyFor(index: number, than: number): boolean {
    for (let cost = 0; cost < than; cost++) if (this.#holders[cost]!.get(index) > 0) return false
    for (const other of this.#peers.values())
      if (other.isSource && other.cost < than && peerHas(other, index)) return false
    return true
  }

  #setPending(index: number, pending: boolean): void {
    if (pending) this.#pending.add(index)
    else this.#pending.delete(index)
    this.#near.set(index, pending && this.#holders[0]!.get(index) === 0)
    this.#checkFar(index)
    for (const { have, options } of this.#peers.values()) {
      if (options === undefined) continue
      if (!pending) options.delete(index)
      else if (have!.has(index)) options.add(index)
    }
  }

  /** Sources are looked at when the item is chosen. */
  #checkFar(index: number): void {
    const [willing, reluctant] = this.#holders
    const is = this.#pending.has(index) && willing!.get(index) === 0 && reluctant!.get(index) === 0
    this.#far.set(index, is && !this.#claims.has(index))
  }

  #count(peer: PickerPeer, index: number, by: 1 | -1): void {
    const count = this.#holders[peer.cost]!.add(index, by)
    if (!this.#pending.has(index)) return
    if (peer.cost === 0) this.#near.set(index, count === 0)
    if (peer.cost < FAR) this.#checkFar(index)
  }

  #countAll(peer: PickerPeer, by: 1 | -1): void {
    if (peer.have === undefined) return
    for (let i = this.#wanted.nextSetInBoth(peer.have, 0); i !== -1; i = this.#wanted.nextSetInBoth(peer.have, i + 1))
      this.#count(peer, i, by)
  }

  #setCost(peer: PickerPeer): void {
    const cost = peer.near ? (peer.reluctant ? 1 : 0) : FAR
    if (cost === peer.cost) return
    if (!peer.isSource) this.#countAll(peer, -1)
    peer.cost = cost
    if (!peer.isSource) this.#countAll(peer, 1)
  }

  /** The peer gains items, so it is no source, and has its share. */
  #joins(peer: PickerPeer, now: number): void {
    peer.gainedAt = now
    if (peer.isSource) {
      this.#countSource(peer, -1)
      peer.isSource = false
      this.#countAll(peer, 1)
    }
    if (peer.isMember || !peer.near) return
    peer.isMember = true
    this.#near.join(peer.id)
  }

  #countAsked(peer: PickerPeer, by: 1 | -1): void {
    peer.asked += by
    if (!peer.near) this.#askedFar += by
  }

  #countSource({ near }: PickerPeer, by: 1 | -1): void {
    if (near) this.#sources += by
  }

  #leaves(peer: PickerPeer): void {
    if (!peer.isMember) return
    peer.isMember = false
    this.#near.leave(peer.id)
  }

  #checkMembers(now: number): void {
    if (now - this.#membersCheckedAt < FETCHER_SILENT_MS / 10) return
    this.#membersCheckedAt = now
    this.#claims.expire(now - CLAIM_LIFE_MS)
    for (const peer of this.#peers.values()) if (now - peer.gainedAt >= FETCHER_SILENT_MS) this.#leaves(peer)
  }

  #pendingOf(have: Bitmap): IndexSet {
    const options = new IndexSet(have.length)
    for (let i = have.nextSetInBoth(this.#wanted, 0); i !== -1; i = have.nextSetInBoth(this.#wanted, i + 1))
      if (this.#pending.has(i)) options.add(i)
    return options
  }

  #peer(id: string): PickerPeer {
    const peer = this.#peers.get(id)
    assert(peer !== undefined, `${id} is no peer`)
    return peer
  }
}
