import assert from 'node:assert/strict'
import { DUPLICATE_FACTOR, DUPLICATE_SAMPLE, ENDGAME_AGE_MS, UNKNOWN_BYTES_PER_SECOND } from './limits.ts'
import { isNear, type PickerPeer, peerHas } from './picker-peer.ts'

interface Ask {
  readonly peer: PickerPeer
  /** When the peer was asked. */
  readonly at: number
}

/** Whom each item is asked of: of one peer or, at the very end, of two. */
export class OpenAsks {
  readonly #asks = new Map<number, Ask[]>()
  readonly #itemBytes: number
  #far = 0

  constructor(itemBytes: number) {
    this.#itemBytes = itemBytes
  }

  /** How many items are asked of somebody. */
  get size(): number {
    return this.#asks.size
  }

  /** How many requests to far peers are open. */
  get far(): number {
    return this.#far
  }

  /** Items that are asked of somebody, the one first that was asked first. */
  items(): IterableIterator<number> {
    return this.#asks.keys()
  }

  /** Peers that an item is asked of. */
  of(index: number): PickerPeer[] {
    return (this.#asks.get(index) ?? []).map(({ peer }) => peer)
  }

  add(index: number, peer: PickerPeer, at: number): void {
    const asks = this.#asks.get(index)
    assert(asks?.some((ask) => ask.peer === peer) !== true, `item ${index} is asked twice of one peer`)
    if (asks === undefined) this.#asks.set(index, [{ peer, at }])
    else asks.push({ peer, at })
    this.#count(peer, 1)
  }

  /** A peer is no longer asked for an item. Returns true if it was the last one asked. */
  remove(index: number, id: string): boolean {
    const asks = this.#asks.get(index)
    const at = asks?.findIndex(({ peer }) => peer.id === id) ?? -1
    if (asks === undefined || at === -1) return false
    this.#count(asks[at]!.peer, -1)
    asks.splice(at, 1)
    if (asks.length === 0) this.#asks.delete(index)
    return asks.length === 0
  }

  /** Nobody is asked for an item any more. Returns the peers that were. */
  close(index: number): PickerPeer[] {
    const peers = this.of(index)
    for (const peer of peers) this.#count(peer, -1)
    this.#asks.delete(index)
    return peers
  }

  /** An item that another peer is asked for and that `peer` can bring much sooner, or -1. */
  slowest(peer: PickerPeer, now: number): number {
    let left = DUPLICATE_SAMPLE
    for (const [index, asks] of this.#asks) {
      if (left-- === 0) return -1
      const [first] = asks
      if (asks.length !== 1 || first === undefined || first.peer === peer) continue
      const age = now - first.at
      if (age < ENDGAME_AGE_MS || !peerHas(peer, index)) continue
      const expected = Math.max(age, this.#msFor(first.peer, first.peer.asked))
      if (expected > DUPLICATE_FACTOR * this.#msFor(peer, peer.asked + 1)) return index
    }
    return -1
  }

  #msFor(peer: PickerPeer, items: number): number {
    return (items * this.#itemBytes * 1000) / (peer.bytesPerSecond ?? UNKNOWN_BYTES_PER_SECOND)
  }

  #count(peer: PickerPeer, by: 1 | -1): void {
    peer.asked += by
    if (!isNear(peer)) this.#far += by
  }
}
