import type { ContentRequest, Deliver, Holding, HoldingChange, Position } from '../../node/store/block-source.ts'
import { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, digestOf, sameBytes } from '../../protocol/digest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { type ByteCount, byteCount } from '../../protocol/units.ts'

/** An image in memory that is (partly) held; `gain` as a restoring machine does. */
export class MemoryHolding implements Holding {
  readonly root: Digest
  readonly size
  readonly blockSize: ByteCount
  readonly blocks: readonly Uint8Array[]
  readonly #held: Bitmap
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
    const block = this.blocks[hint.index]
    if (block === undefined || !this.#held.has(hint.index) || !sameBytes(digestOf(block), digest)) return undefined
    this.served.set(hint.index, (this.served.get(hint.index) ?? 0) + 1)
    return block
  }

  gain(index: number): void {
    if (!this.#held.set(index)) return
    for (const listener of this.#listeners) listener({ gained: RangeSet.of(index, index + 1), lost: RangeSet.empty })
  }

  lose(index: number): void {
    if (!this.#held.clear(index)) return
    for (const listener of this.#listeners) listener({ gained: RangeSet.empty, lost: RangeSet.of(index, index + 1) })
  }

  onChange(listener: (change: HoldingChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
