import type { Bitmap } from '../../../protocol/bitmap.ts'
import { LazyCounts } from '../lazy-counts.ts'
import { type Cost, isNear, type PickerPeer, peerHas } from './picker-peer.ts'

/** Which peers have which wanted items, and what the cheapest of them costs. Sources are kept apart: they have nearly all. */
export class Holders {
  readonly #wanted: Bitmap
  /** How many peers of each cost, sources left out, have an item. */
  readonly #counts: readonly LazyCounts[]
  readonly #sources = new Set<PickerPeer>()
  readonly #changed: (index: number, cost: Cost) => void

  /** `changed`: another number of peers of this cost, sources left out, has an item. */
  constructor(wanted: Bitmap, changed: (index: number, cost: Cost) => void) {
    this.#wanted = wanted
    this.#changed = changed
    this.#counts = [0, 1, 2].map(() => new LazyCounts(wanted.length))
  }

  /** How many near peers are sources. */
  get nearSources(): number {
    let count = 0
    for (const source of this.#sources) if (isNear(source)) count++
    return count
  }

  /** Counts a peer and all that it has, as a source or as another peer. */
  add(peer: PickerPeer): void {
    if (peer.isSource) this.#sources.add(peer)
    else this.#countAll(peer, 1)
  }

  /** The inverse of {@link add}; the peer is still what it was then. */
  remove(peer: PickerPeer): void {
    if (peer.isSource) this.#sources.delete(peer)
    else this.#countAll(peer, -1)
  }

  /** A peer has an item more (1), or one less (-1). */
  count(peer: PickerPeer, index: number, by: 1 | -1): void {
    if (peer.isSource) return
    this.#counts[peer.cost]!.add(index, by)
    this.#changed(index, peer.cost)
  }

  /** How many peers of a cost, sources left out, have an item. */
  of(index: number, cost: Cost): number {
    return this.#counts[cost]!.get(index)
  }

  /** How many peers, sources left out, have an item. */
  total(index: number): number {
    return this.#counts.reduce((sum, counts) => sum + counts.get(index), 0)
  }

  /** Whether a peer that costs less than `cost` has an item, sources included. */
  hasCheaper(index: number, cost: Cost): boolean {
    for (let cheaper = 0; cheaper < cost; cheaper++) if (this.#counts[cheaper]!.get(index) > 0) return true
    for (const source of this.#sources) if (source.cost < cost && peerHas(source, index)) return true
    return false
  }

  #countAll(peer: PickerPeer, by: 1 | -1): void {
    const { have } = peer
    if (have === undefined) return
    for (let i = this.#wanted.nextSetInBoth(have, 0); i !== -1; i = this.#wanted.nextSetInBoth(have, i + 1))
      this.count(peer, i, by)
  }
}
