import assert from 'node:assert/strict'
import { Bitmap } from '../../protocol/bitmap.ts'
import {
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
} from '../../protocol/constants.ts'
import { IndexSet } from './index-set.ts'
import { type PickerPeer, peerHas } from './picker-peer.ts'
import { Shares } from './shares.ts'

export interface BlockPickerOptions {
  /** Items to fetch; the caller keeps it, the picker works on a copy. */
  readonly wanted: Bitmap
  /** Bytes of one item. */
  readonly itemBytes: number
  /** This machine's peer id, under which it has its share. */
  readonly self: string
  /** In [0, 1). */
  readonly random: () => number
}

interface Ask {
  readonly peer: PickerPeer
  readonly at: number
}

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
 * - A far or reluctant peer is asked for what no nearer or more willing one has.
 *
 * A choice looks at a bounded number of items, however large the image.
 */
export class BlockPicker {
  readonly #wanted: Bitmap
  readonly #itemBytes: number
  readonly #random: () => number
  readonly #shares: Shares
  readonly #peers = new Map<string, PickerPeer>()
  readonly #pending: IndexSet
  /** Pending items that no near peer has but sources. */
  readonly #sourceOnly: IndexSet
  /** Of those, this machine's share. */
  readonly #own: IndexSet
  /** Of those, what is this machine's if the owner leaves. */
  readonly #inherited: IndexSet
  readonly #asked = new Map<number, Ask[]>()
  /** How many peers of each cost, sources left out, have an item. */
  readonly #holders: readonly Uint16Array[]
  /** Consecutive items that are one machine's share together; the same for all machines. */
  readonly #groupItems: number
  #sources = 0
  #ownCursor = 0
  #membersCheckedAt = Number.NEGATIVE_INFINITY
  #looked = 0

  constructor({ wanted, itemBytes, self, random }: BlockPickerOptions) {
    this.#wanted = wanted.copy()
    this.#itemBytes = itemBytes
    this.#random = random
    this.#pending = setOf(wanted)
    this.#sourceOnly = setOf(wanted)
    this.#own = setOf(wanted)
    this.#inherited = new IndexSet(wanted.length)
    this.#groupItems = Math.ceil(wanted.length / SHARE_GROUPS)
    this.#holders = [0, 1, 2].map(() => new Uint16Array(wanted.length))
    this.#shares = new Shares(self, this.#groupsOfWanted())
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
    for (const peer of this.#peers.values()) if (this.#optionsOf(peer).size > 0) return true
    return false
  }

  /** How many peers have an item, those left out that had all (or most) of what is wanted from the beginning. */
  holdersOf(index: number): number {
    return this.#holders.reduce((sum, holders) => sum + holders[index]!, 0)
  }

  isOwn(index: number): boolean {
    return this.#shares.isOwn(this.#groupOf(index))
  }

  /**
   * A peer holds (part of) the image. `have`: which items; undefined: all. A copy is taken. `elsewhere`: it does not hold the
   * image but others, and has what is found there by content.
   */
  addPeer(id: string, options: { readonly have: Bitmap | undefined; readonly elsewhere?: boolean }, now: number): void {
    const { have, elsewhere = false } = options
    assert(!this.#peers.has(id), `${id} is added twice`)
    const part = have === undefined || have.count === have.length ? undefined : have.copy()
    const peer: PickerPeer = {
      id,
      have: part,
      options: undefined,
      isSource: !elsewhere,
      elsewhere,
      isMember: false,
      cost: 0,
      near: true,
      reluctant: false,
      gainedAt: now,
      bytesPerSecond: undefined,
      asked: 0,
      cursor: -1,
    }
    this.#peers.set(id, peer)
    if (peer.isSource) this.#sources++
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

  /** A peer is gone, or is not to be asked for now; what it was asked for is pending again. */
  removePeer(id: string): void {
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    for (const index of [...this.#asked.keys()]) this.unasked(index, id)
    this.#leaves(peer)
    if (peer.isSource) this.#sources--
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
    peer.near = near
    this.#setCost(peer)
  }

  /** Whether a peer is the last to be asked for anything. */
  setReluctant(id: string, reluctant: boolean): void {
    const peer = this.#peer(id)
    peer.reluctant = reluctant
    this.#setCost(peer)
  }

  /** What to ask a peer for next, or -1. Changes nothing; what is really asked for is told by {@link markAsked}. */
  next(id: string, now: number): number {
    const peer = this.#peer(id)
    this.#checkMembers(now)
    const options = this.#optionsOf(peer)
    if (options.size === 0) return -1
    if (!peer.isSource) return this.#pick(peer, options, peer.cursor)
    if (!this.#sparesSources) return this.#pick(peer, peer.cost === 0 ? options : this.#sourceOnly, peer.cursor)
    const own = this.#nextOwn(peer)
    if (own !== -1 || peer.asked >= STRAY_ITEMS) return own
    // Owners begin at the start of the image, so others take from behind, each somewhere else.
    const others = this.#inherited.size > 0 ? this.#inherited : this.#sourceOnly
    const low = others.next(0)
    const start = low + Math.floor((this.#wanted.length - low) * this.#random())
    return this.#pick(peer, others, start)
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
    peer.asked++
    peer.cursor = index + 1
  }

  /** A peer will not deliver an item; it is pending again unless somebody else is asked for it. */
  unasked(index: number, id: string): void {
    const asks = this.#asked.get(index)
    const at = asks?.findIndex(({ peer }) => peer.id === id) ?? -1
    if (asks === undefined || at === -1) return
    asks[at]!.peer.asked--
    asks.splice(at, 1)
    if (asks.length > 0) return
    this.#asked.delete(index)
    this.#setPending(index, true)
  }

  /** An item is here and right. Returns who is still asked for it. */
  delivered(index: number, from: string): string[] {
    const asks = this.#asked.get(index) ?? []
    for (const { peer } of asks) peer.asked--
    this.#asked.delete(index)
    if (this.#pending.has(index)) this.#setPending(index, false)
    return asks.map(({ peer }) => peer.id).filter((id) => id !== from)
  }

  /** An item asked of another peer that this one can bring much sooner, or -1. Only when nothing else can be asked. */
  duplicate(id: string, now: number): number {
    const peer = this.#peer(id)
    if (this.canServe) return -1
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
    return this.#sources < this.#shares.members && this.#sourceOnly.size > this.#pending.size * SOURCE_ONLY_SHARE
  }

  #msFor(peer: PickerPeer, items: number): number {
    return (items * this.#itemBytes * 1000) / (peer.bytesPerSecond ?? UNKNOWN_BYTES_PER_SECOND)
  }

  #nextOwn(peer: PickerPeer): number {
    let at = this.#own.nextAround(this.#ownCursor)
    for (let i = 0; i < PICK_SAMPLE && at !== -1; i++) {
      this.#looked++
      if (this.#mayAsk(peer, at)) {
        this.#ownCursor = at
        return at
      }
      at = this.#own.nextAround(at + 1)
    }
    // Others of the share are looked at the next time.
    if (at !== -1) this.#ownCursor = at
    return -1
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
        if (holders[at]! < fewest && this.#mayAsk(peer, at)) {
          fewest = holders[at]!
          best = at
        }
        at = from.nextAround(at + 1)
      }
    }
    return best
  }

  /** Whether the peer has an item, and nobody who costs less has it. */
  #mayAsk(peer: PickerPeer, index: number): boolean {
    if (!peerHas(peer, index)) return false
    if (peer.cost === 0) return true
    for (let cost = 0; cost < peer.cost; cost++) if (this.#holders[cost]![index]! > 0) return false
    for (const other of this.#peers.values())
      if (other.isSource && other.cost < peer.cost && peerHas(other, index)) return false
    return true
  }

  #setPending(index: number, pending: boolean): void {
    if (pending) this.#pending.add(index)
    else this.#pending.delete(index)
    this.#setSourceOnly(index, pending && this.#holders[0]![index] === 0)
    for (const { have, options } of this.#peers.values()) {
      if (options === undefined) continue
      if (!pending) options.delete(index)
      else if (have!.has(index)) options.add(index)
    }
  }

  #setSourceOnly(index: number, is: boolean): void {
    if (is === this.#sourceOnly.has(index)) return
    if (is) this.#sourceOnly.add(index)
    else this.#sourceOnly.delete(index)
    this.#divide(index)
  }

  /** Puts an item where it belongs: into the own share, among what may be inherited, or neither. */
  #divide(index: number): void {
    this.#own.delete(index)
    this.#inherited.delete(index)
    if (!this.#sourceOnly.has(index)) return
    const group = this.#groupOf(index)
    if (this.#shares.isOwn(group)) this.#own.add(index)
    else if (this.#shares.isHeir(group)) this.#inherited.add(index)
  }

  #divideAnew(groups: readonly number[]): void {
    for (const group of groups) for (let i = group * this.#groupItems; i < this.#endOf(group); i++) this.#divide(i)
  }

  #count(peer: PickerPeer, index: number, by: 1 | -1): void {
    const holders = this.#holders[peer.cost]!
    holders[index]! += by
    if (peer.cost === 0 && this.#pending.has(index)) this.#setSourceOnly(index, holders[index] === 0)
  }

  #countAll(peer: PickerPeer, by: 1 | -1): void {
    if (peer.have === undefined) return
    for (let i = this.#wanted.nextSetInBoth(peer.have, 0); i !== -1; i = this.#wanted.nextSetInBoth(peer.have, i + 1))
      this.#count(peer, i, by)
  }

  #setCost(peer: PickerPeer): void {
    const cost = peer.reluctant ? 2 : peer.near ? 0 : 1
    if (cost === peer.cost) return
    if (!peer.isSource) this.#countAll(peer, -1)
    peer.cost = cost
    if (!peer.isSource) this.#countAll(peer, 1)
  }

  /** The peer gains items, so it is no source, and has its share. */
  #joins(peer: PickerPeer, now: number): void {
    peer.gainedAt = now
    if (peer.isSource) {
      peer.isSource = false
      this.#sources--
      this.#countAll(peer, 1)
    }
    if (peer.isMember) return
    peer.isMember = true
    this.#divideAnew(this.#shares.join(peer.id))
  }

  #leaves(peer: PickerPeer): void {
    if (!peer.isMember) return
    peer.isMember = false
    this.#divideAnew(this.#shares.leave(peer.id))
  }

  #checkMembers(now: number): void {
    if (now - this.#membersCheckedAt < FETCHER_SILENT_MS / 10) return
    this.#membersCheckedAt = now
    for (const peer of this.#peers.values()) if (now - peer.gainedAt >= FETCHER_SILENT_MS) this.#leaves(peer)
  }

  #pendingOf(have: Bitmap): IndexSet {
    const options = new IndexSet(have.length)
    for (let i = have.nextSetInBoth(this.#wanted, 0); i !== -1; i = have.nextSetInBoth(this.#wanted, i + 1))
      if (this.#pending.has(i)) options.add(i)
    return options
  }

  #groupOf(index: number): number {
    return Math.floor(index / this.#groupItems)
  }

  #endOf(group: number): number {
    return Math.min((group + 1) * this.#groupItems, this.#wanted.length)
  }

  #groupsOfWanted(): number[] {
    const groups: number[] = []
    for (let i = this.#wanted.nextSet(0); i !== -1; i = this.#wanted.nextSet(this.#endOf(groups.at(-1)!)))
      groups.push(this.#groupOf(i))
    return groups
  }

  #optionsOf(peer: PickerPeer): IndexSet {
    return peer.options ?? this.#pending
  }

  #peer(id: string): PickerPeer {
    const peer = this.#peers.get(id)
    assert(peer !== undefined, `${id} is no peer`)
    return peer
  }
}

function setOf(bitmap: Bitmap): IndexSet {
  const set = new IndexSet(bitmap.length)
  for (let i = bitmap.nextSet(0); i !== -1; i = bitmap.nextSet(i + 1)) set.add(i)
  return set
}
