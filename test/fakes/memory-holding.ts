import type { ContentRequest, Deliver, Holding, HoldingChange, Position } from '../../node/store/block-source.ts'
import { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, digestOf, toHex } from '../../protocol/digest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { type ByteCount, byteCount } from '../../protocol/units.ts'

/** An image in memory that is (partly) held; `gain` as a restoring machine does. */
export class MemoryHolding implements Holding {
  readonly root: Digest
  readonly size
  readonly blockSize: ByteCount
  readonly blocks: readonly Uint8Array[]
  readonly #held: Bitmap
  readonly #index = new Map<string, number[]>()
  readonly #listeners = new Set<(change: HoldingChange) => void>()
  /** Blocks given out, by index. */
  readonly served = new Map<number, number>()

  constructor(blocks: readonly Uint8Array[], held: Iterable<number>, blockSize = 4096) {
    this.blocks = blocks
    this.blockSize = byteCount(blockSize)
    this.root = digestOf(Buffer.concat(blocks.map((block) => digestOf(block))))
    this.size = byteCount(blocks.length * blockSize)
    this.#held = new Bitmap(blocks.length)
    for (const index of held) this.#held.set(index)
  }

  held(): RangeSet {
    return this.#held.toRanges()
  }

  async getMany(requests: readonly ContentRequest[], deliver: Deliver): Promise<void> {
    for (const [at, request] of requests.entries()) deliver(at, await this.get(request.digest, request))
  }

  async get(digest: Digest, hint: Position): Promise<Uint8Array | undefined> {
    const places = this.#places(digest)
    const index = places.includes(hint.index) ? hint.index : places[0]
    if (index === undefined) return undefined
    this.served.set(index, (this.served.get(index) ?? 0) + 1)
    return this.blocks[index]
  }

  async has(digest: Digest): Promise<boolean> {
    return this.#places(digest).length > 0
  }

  gain(index: number): void {
    if (!this.#held.set(index)) return
    for (const listener of this.#listeners) listener({ gained: RangeSet.of(index, index + 1), lost: RangeSet.empty })
  }

  lose(index: number): void {
    if (!this.#held.clear(index)) return
    for (const listener of this.#listeners) listener({ gained: RangeSet.empty, lost: RangeSet.of(index, index + 1) })
  }

  /** Where a content stands and is held. */
  #places(digest: Digest): number[] {
    if (this.#index.size === 0) {
      for (const [index, block] of this.blocks.entries()) {
        const key = toHex(digestOf(block))
        this.#index.set(key, [...(this.#index.get(key) ?? []), index])
      }
    }
    return (this.#index.get(toHex(digest)) ?? []).filter((index) => this.#held.has(index))
  }

  onChange(listener: (change: HoldingChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
