import assert from 'node:assert/strict'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { RangeSet, type Run } from '../../../protocol/ranges.ts'
import { Claims } from '../uplink/claims.ts'
import { farWindow } from '../uplink/far-window.ts'
import { Division } from './division.ts'
import { Holders } from './holders.ts'
import { IndexSet } from './index-set.ts'
import {
  CLAIM_LIFE_MS,
  FETCHER_SILENT_MS,
  PICK_PROBES,
  PICK_SAMPLE,
  SHARE_GROUPS,
  SOURCE_ONLY_SHARE,
  STRAY_ITEMS,
} from './limits.ts'
import { OpenAsks } from './open-asks.ts'
import { type Cost, FAR, isNear, type PickerPeer, peerHas } from './picker-peer.ts'

interface BlockPickerOptions {
  /** Items to fetch. The caller keeps the bitmap, the picker works on a copy. */
  readonly wanted: Bitmap
  /** Bytes of one item. */
  readonly itemBytes: number
  /** This machine's peer id, under which it has its share. */
  readonly self: string
  /** In [0, 1). */
  readonly random: () => number
  /** Whether one machine of the site fetches all of what far peers have (@default false: each machine its share). */
  readonly undivided?: boolean
}

/** A peer that holds (part of) the image, or of which something is known by content. */
interface NewPeer {
  /** Items it has; undefined: all. A copy is taken. */
  readonly have: Bitmap | undefined
  /** Whether it holds other images, and has what is found there by content (@default false). */
  readonly elsewhere?: boolean
  /** Whether it is on this machine's side of the uplink (@default true). */
  readonly near?: boolean
  /** Whether it is asked only for what no more willing peer has (@default false). */
  readonly reluctant?: boolean
}

/**
 * Chooses what one fetch asks of whom. Every wanted item is pending, asked of one peer or (at the very end) two, or
 * delivered. The picker is pure: the caller tells what happens, at what time (milliseconds of any clock), and gives the
 * random numbers.
 *
 * The rules, which docs/decisions/0010-picker.md gives reasons for:
 * - Of what a peer has, the item is asked for that the fewest machines have; among equals the one behind the last.
 * - A source is a peer that had what is wanted when it came, and gains nothing. A source is asked for what only sources have,
 *   and of that for this machine's share. Other machines' shares are asked for only when all of the own share is asked, one
 *   item at a time.
 * - Sources are spared like that while there are fewer of them than machines that fetch, and while only sources have much of
 *   what is pending.
 * - A reluctant peer is asked for what no more willing peer has.
 * - A far peer is behind the uplink. It is asked for what no near peer has, and what no other machine of the site has claimed
 *   to fetch over the uplink; of that for this machine's share first, as with sources; and for nothing twice.
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
  /** Pending items that no willing near peer has but sources, among the near peers that fetch. */
  readonly #near: Division
  /** Pending items that no near peer has or claims, among the machines that fetch over the uplink. */
  readonly #far: Division
  readonly #claims: Claims
  readonly #asks: OpenAsks
  readonly #holders: Holders
  #silentCheckedAt = Number.NEGATIVE_INFINITY
  #looked = 0

  constructor({ wanted, itemBytes, self, random, undivided = false }: BlockPickerOptions) {
    this.#wanted = wanted.copy()
    this.#itemBytes = itemBytes
    this.#random = random
    this.#undivided = undivided
    this.#pending = IndexSet.of(wanted)
    const groupItems = Math.ceil(wanted.length / SHARE_GROUPS)
    this.#near = new Division({ self, wanted, groupItems })
    this.#far = new Division({ self, wanted, groupItems: undivided ? wanted.length : groupItems })
    this.#claims = new Claims(wanted.length, (index) => this.#divideFar(index))
    this.#asks = new OpenAsks(itemBytes)
    this.#holders = new Holders(this.#wanted, (index, cost) => this.#divideAnew(index, cost))
  }

  /** How many items are to be asked. */
  get pending(): number {
    return this.#pending.size
  }

  /** How many items are asked of somebody. */
  get asked(): number {
    return this.#asks.size
  }

  /** How many items were looked at since the beginning, for tests of the cost. */
  get looked(): number {
    return this.#looked
  }

  /** Whether a peer has something that is to be asked. */
  get canServe(): boolean {
    for (const peer of this.#peers.values()) if ((peer.options ?? this.#pending).size > 0) return true
    return false
  }

  hasPeer(id: string): boolean {
    return this.#peers.has(id)
  }

  /** Whether a peer holds (part of) the image itself. */
  holdsImage(id: string): boolean {
    return this.#peers.get(id)?.elsewhere === false
  }

  isPending(index: number): boolean {
    return this.#pending.has(index)
  }

  /** Whether an item is of this machine's share of what only sources have. */
  isOwn(index: number): boolean {
    return this.#near.isOwn(index)
  }

  /** Whether an item is this machine's to fetch from far peers, since no near one has it. */
  isForFar(index: number): boolean {
    return this.#far.own.has(index) && !this.#holders.hasCheaper(index, FAR)
  }

  /** How many peers have an item; sources are not counted. */
  holdersOf(index: number): number {
    return this.#holders.total(index)
  }

  /** Peers that an item is asked of. */
  askersOf(index: number): string[] {
    return this.#asks.of(index).map(({ id }) => id)
  }

  /** Items that were not delivered yet: first the pending ones, then those that are asked. */
  *left(): Generator<number> {
    yield* this.#pending.values()
    yield* this.#asks.items()
  }

  addPeer(id: string, { have, elsewhere = false, near = true, reluctant = false }: NewPeer, now: number): void {
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
      cost: near ? (reluctant ? 1 : 0) : FAR,
      gainedAt: now,
      bytesPerSecond: undefined,
      asked: 0,
      cursor: -1,
    }
    this.#peers.set(id, peer)
    this.#holders.add(peer)
    if (part === undefined) return
    peer.options = this.#pendingOf(part)
    // A peer that lacks most of what is wanted here is fetching it as well.
    if (!elsewhere && peer.options.size * 2 < this.#pending.size) this.#join(peer, now)
  }

  /** A peer has more items; ranges are half-open. */
  gained(id: string, ranges: Iterable<Run>, now: number): void {
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
        this.#holders.count(peer, i, 1)
      }
    }
    if (!more || peer.elsewhere) return
    if (have.count < have.length) this.#join(peer, now)
    else this.#leave(peer)
  }

  /** A peer no longer has some items: its disk was written, or it answered that they are missing. */
  lost(id: string, ranges: Iterable<Run>): void {
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
        this.#holders.count(peer, i, -1)
      }
    }
  }

  /** A near peer is not to be asked now, but may go on: what it has is not fetched from far meanwhile. */
  suspendPeer(id: string, now: number): void {
    const peer = this.#peers.get(id)
    this.removePeer(id)
    if (peer === undefined || !isNear(peer)) return
    this.#claims.suspend(id, peer.have?.toRanges() ?? RangeSet.of(0, this.#wanted.length), now)
  }

  /** A near peer is asked only for what no more willing peer has, from now on, or no longer. What it is asked for stays so. */
  setReluctant(id: string, reluctant: boolean): void {
    const peer = this.#peer(id)
    const cost = reluctant ? 1 : 0
    if (!isNear(peer) || peer.cost === cost) return
    this.#holders.remove(peer)
    peer.cost = cost
    this.#holders.add(peer)
  }

  /** A peer is gone; what it was asked for is pending again. */
  removePeer(id: string): void {
    this.#claims.resume(id)
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    for (const index of [...this.#asks.items()]) this.unasked(index, id)
    this.#leave(peer)
    this.#holders.remove(peer)
    this.#peers.delete(id)
  }

  /** What a peer delivers, as measured. */
  setSpeed(id: string, bytesPerSecond: number): void {
    this.#peer(id).bytesPerSecond = bytesPerSecond
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

  /**
   * Picks what to ask a peer for next, or -1; {@link markAsked} tells what is really asked for. Machines that were silent for
   * too long lose their share and their claims before.
   */
  pick(id: string, now: number): number {
    const peer = this.#peer(id)
    this.#dropSilent(now)
    const options = peer.options ?? this.#pending
    if (options.size === 0) return -1
    if (!isNear(peer)) return this.#farHasRoom ? this.#pickShared(this.#far, peer, this.#undivided) : -1
    if (!peer.isSource) return this.#pickRarest(peer, options, peer.cursor)
    if (this.#sparesSources) return this.#pickShared(this.#near, peer, false)
    return this.#pickRarest(peer, peer.cost === 0 ? options : this.#near.items, peer.cursor)
  }

  /** An item is asked of a peer. */
  markAsked(index: number, id: string, now: number): void {
    const peer = this.#peer(id)
    assert(this.#pending.has(index) || this.#asks.of(index).length > 0, `item ${index} is not wanted`)
    this.#asks.add(index, peer, now)
    if (this.#pending.has(index)) this.#setPending(index, false)
    peer.cursor = index + 1
  }

  /** A peer will not deliver an item; it is pending again unless somebody else is asked for it. */
  unasked(index: number, id: string): void {
    if (this.#asks.remove(index, id)) this.#setPending(index, true)
  }

  /** An item is here and right. Returns the other peers that are still asked for it. */
  delivered(index: number, from: string): string[] {
    const asked = this.#asks.close(index).map(({ id }) => id)
    if (this.#pending.has(index)) this.#setPending(index, false)
    return asked.filter((id) => id !== from)
  }

  /** An item asked of another peer that this one can bring much sooner, or -1. Only when nothing else can be asked. */
  duplicate(id: string, now: number): number {
    const peer = this.#peer(id)
    // What crosses the uplink crosses it once.
    return !isNear(peer) || this.canServe ? -1 : this.#asks.slowest(peer, now)
  }

  get #sparesSources(): boolean {
    const onlySources = this.#near.items.size
    return this.#holders.nearSources < this.#near.members && onlySources > this.#pending.size * SOURCE_ONLY_SHARE
  }

  /** Whether more may be on its way over the uplink to this machine. */
  get #farHasRoom(): boolean {
    return this.#asks.far < farWindow(this.#itemBytes, this.#undivided ? 1 : this.#far.members)
  }

  /** Picks from the own share. When all of that is asked: one item at a time from other machines' shares, unless `ownOnly`. */
  #pickShared(division: Division, peer: PickerPeer, ownOnly: boolean): number {
    const own = division.advance((index) => {
      this.#looked++
      return this.#mayAsk(peer, index)
    })
    const near = isNear(peer)
    if (own !== -1 || ownOnly || (near ? peer.asked : this.#asks.far) >= STRAY_ITEMS) return own
    // At the end all others would ask for the same item, and it would cross the uplink for each of them.
    if (!near && division.inherited.size === 0) return -1
    // Owners begin at the start of the image, so others take from behind, each somewhere else.
    const others = division.inherited.size > 0 ? division.inherited : division.items
    const low = others.next(0)
    const start = low + Math.floor((this.#wanted.length - low) * this.#random())
    return this.#pickRarest(peer, others, start)
  }

  /** Picks the rarest of what is seen from `start` (-1: from anywhere) and from a few other places. */
  #pickRarest(peer: PickerPeer, from: IndexSet, start: number): number {
    const seesAll = from.size <= PICK_PROBES * PICK_SAMPLE
    const least = peer.isSource ? 0 : 1
    let best = -1
    let fewest = Number.POSITIVE_INFINITY
    for (let probe = 0; probe < (seesAll ? 1 : PICK_PROBES) && fewest > least; probe++) {
      const anywhere = probe > 0 || start === -1
      let at = from.nextAround(anywhere ? Math.floor(this.#random() * from.length) : start)
      for (let left = seesAll ? from.size : PICK_SAMPLE; left > 0 && at !== -1 && fewest > least; left--) {
        this.#looked++
        const count = this.#holders.of(at, peer.cost)
        if (count < fewest && this.#mayAsk(peer, at)) {
          fewest = count
          best = at
        }
        at = from.nextAround(at + 1)
      }
    }
    return best
  }

  /** Whether the peer has an item, and no peer has it that costs less. */
  #mayAsk(peer: PickerPeer, index: number): boolean {
    return peerHas(peer, index) && !this.#holders.hasCheaper(index, peer.cost)
  }

  #setPending(index: number, pending: boolean): void {
    if (pending) this.#pending.add(index)
    else this.#pending.delete(index)
    this.#divideNear(index)
    this.#divideFar(index)
    for (const { have, options } of this.#peers.values()) {
      if (options === undefined) continue
      if (!pending) options.delete(index)
      else if (have!.has(index)) options.add(index)
    }
  }

  /** Another number of peers of this cost has an item: that may bring it into the divisions, or out of them. */
  #divideAnew(index: number, cost: Cost): void {
    if (!this.#pending.has(index) || cost === FAR) return
    if (cost === 0) this.#divideNear(index)
    this.#divideFar(index)
  }

  #divideNear(index: number): void {
    this.#near.set(index, this.#pending.has(index) && this.#holders.of(index, 0) === 0)
  }

  /** Near sources do not count here: whether one of them has an item is looked at when the item is picked. */
  #divideFar(index: number): void {
    const nobodyNear = this.#holders.of(index, 0) === 0 && this.#holders.of(index, 1) === 0
    this.#far.set(index, this.#pending.has(index) && nobodyNear && !this.#claims.has(index))
  }

  /** A peer gains items, so it is no source; a near one has its share. */
  #join(peer: PickerPeer, now: number): void {
    peer.gainedAt = now
    if (peer.isSource) {
      this.#holders.remove(peer)
      peer.isSource = false
      this.#holders.add(peer)
    }
    if (peer.isMember || !isNear(peer)) return
    peer.isMember = true
    this.#near.join(peer.id)
  }

  #leave(peer: PickerPeer): void {
    if (!peer.isMember) return
    peer.isMember = false
    this.#near.leave(peer.id)
  }

  /** Takes the share of machines that gained nothing for FETCHER_SILENT_MS, and claims older than CLAIM_LIFE_MS. */
  #dropSilent(now: number): void {
    if (now - this.#silentCheckedAt < FETCHER_SILENT_MS / 10) return
    this.#silentCheckedAt = now
    this.#claims.expire(now - CLAIM_LIFE_MS)
    for (const peer of this.#peers.values()) if (now - peer.gainedAt >= FETCHER_SILENT_MS) this.#leave(peer)
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
