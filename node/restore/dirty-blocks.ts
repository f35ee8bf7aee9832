import { Bitmap } from '../../protocol/bitmap.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { countGranules } from '../../protocol/granules.ts'
import type { Manifest } from '../../protocol/manifest.ts'
import { RangeSet } from '../../protocol/ranges.ts'

type Image = Pick<Manifest, 'size' | 'blockSize' | 'preserve'>

/**
 * The blocks of an image that may be wrong and, if a log knows them, which granules of them. Preserved blocks are never
 * among them. Memory: one bit for each block, and one bit for each granule if a log is the source.
 */
export class DirtyBlocks {
  /** Blocks that may be wrong; the writer clears what it has put right. */
  readonly blocks: Bitmap
  readonly #granules: Bitmap | undefined
  readonly #perBlock: number

  private constructor(blocks: Bitmap, granules: Bitmap | undefined, perBlock: number) {
    this.blocks = blocks
    this.#granules = granules
    this.#perBlock = perBlock
  }

  /** Blocks that a scan found wrong. */
  static fromScan(blocks: Bitmap): DirtyBlocks {
    return new DirtyBlocks(blocks, undefined, 0)
  }

  /** `dirty`: units of `unitSize` bytes as a log has them; those behind the image are ignored. */
  static fromLog(dirty: RangeSet, unitSize: number, image: Image): DirtyBlocks {
    const blocks = new Bitmap(Math.ceil(image.size / image.blockSize))
    const fine = unitSize < image.blockSize && image.blockSize > GRANULE_SIZE_BYTES
    const granules = fine ? new Bitmap(Math.ceil(image.size / GRANULE_SIZE_BYTES)) : undefined
    for (const [start, end] of dirty.runs()) {
      const from = start * unitSize
      const to = Math.min(end * unitSize, image.size)
      if (from >= to) break
      blocks.setRange(Math.floor(from / image.blockSize), Math.ceil(to / image.blockSize))
      granules?.setRange(Math.floor(from / GRANULE_SIZE_BYTES), Math.ceil(to / GRANULE_SIZE_BYTES))
    }
    for (const [start, end] of image.preserve.runs()) blocks.clearRange(start, end)
    return new DirtyBlocks(blocks, granules, countGranules(image.blockSize))
  }

  /** Granules of 4 KiB of a dirty block that may be wrong; undefined if all of them may be. */
  granulesOf(index: number): Bitmap | undefined {
    if (this.#granules === undefined) return undefined
    const first = index * this.#perBlock
    const end = Math.min(first + this.#perBlock, this.#granules.length)
    if (this.#granules.hasRange(first, end)) return undefined
    const granules = new Bitmap(this.#perBlock)
    for (let at = this.#granules.nextSet(first); at !== -1 && at < end; at = this.#granules.nextSet(at + 1))
      granules.set(at - first)
    return granules
  }

  /** Bytes that may be wrong. */
  bytes(blockSize: number): number {
    return this.#granules === undefined ? this.blocks.count * blockSize : this.#granules.count * GRANULE_SIZE_BYTES
  }

  /** The dirty blocks as units of a log. */
  asUnits(unitSize: number, blockSize: number): RangeSet {
    return unitsOf(this.blocks.toRanges(), unitSize, blockSize)
  }
}

/** Units of a log that lie, in whole or in part, in some blocks. */
export function unitsOf(blocks: RangeSet, unitSize: number, blockSize: number): RangeSet {
  return RangeSet.from(
    [...blocks.runs()].map(([start, end]) => [
      Math.floor((start * blockSize) / unitSize),
      Math.ceil((end * blockSize) / unitSize),
    ]),
  )
}
