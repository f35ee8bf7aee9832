import { Bitmap } from '../../protocol/bitmap.ts'
import { countGranules, granuleOf } from '../../protocol/granules.ts'
import type { Repeat } from '../../protocol/repeats.ts'
import type { ImageDisk } from '../disk/image-disk.ts'

interface RepeatedBlocksOptions {
  /** Repeats of the image, in ascending order. */
  readonly repeats: readonly Repeat[]
  readonly disk: ImageDisk
  /** Blocks that are to be fetched as a whole. */
  readonly fetch: Bitmap
  /** Blocks that may still be wrong when all blocks of `fetch` are right. */
  readonly uncertain: Bitmap
}

/**
 * Blocks to restore of which some granules stand in other blocks as well. Once the other blocks are right, those
 * granules are copied and only the rest is fetched. A repeat is only a hint: a block that was put together is hashed as
 * a whole.
 */
export class RepeatedBlocks {
  /** Blocks to put together. */
  readonly blocks: Bitmap
  /** Granules that are copied, in all blocks together. */
  readonly copied: number = 0
  readonly #repeats: readonly Repeat[]
  readonly #disk: ImageDisk
  readonly #uncertain: Bitmap
  /** Granules in a block. */
  readonly #span: number

  constructor({ repeats, disk, fetch, uncertain }: RepeatedBlocksOptions) {
    this.#repeats = repeats
    this.#disk = disk
    this.#uncertain = uncertain
    this.#span = countGranules(disk.blockSize)
    this.blocks = new Bitmap(fetch.length)
    // A granule is copied from a place further to the front. So each block is decided on before it is looked at as a
    // source.
    for (const { to, count } of repeats) {
      const end = Math.ceil((to + count) / this.#span)
      for (let index = Math.floor(to / this.#span); index < end; index++)
        if (fetch.has(index) && this.#copies(index).next().done !== true) this.blocks.set(index)
    }
    for (const index of this.blocks.values()) this.copied += this.#span - this.missing(index).count
  }

  /** Granules of a block that cannot be copied. */
  missing(index: number): Bitmap {
    const missing = new Bitmap(this.#span)
    missing.setRange(0, this.#span)
    for (const { granule } of this.#copies(index)) missing.clear(granule)
    return missing
  }

  /**
   * Reads a block as far as it can be copied, with zeros in the other granules, into a buffer of its own. It is not
   * hashed. Errors: DISK_IO.
   */
  async read(index: number): Promise<Uint8Array> {
    const block = Buffer.alloc(this.#disk.blockSize)
    let source: { index: number; data: Uint8Array } | undefined
    for (const { granule, from } of this.#copies(index)) {
      const at = Math.floor(from / this.#span)
      if (source?.index !== at) source = { index: at, data: await this.#disk.readBlock(at) }
      granuleOf(block, granule).set(granuleOf(source.data, from % this.#span))
    }
    return block
  }

  /** Granules of a block, with the places in the image that they are copied from. */
  *#copies(index: number): Generator<{ granule: number; from: number }> {
    const [first, end] = [index * this.#span, (index + 1) * this.#span]
    for (let i = this.#firstBehind(first); i < this.#repeats.length; i++) {
      const { to, from, count } = this.#repeats[i]!
      if (to >= end) return
      for (let at = Math.max(to, first); at < Math.min(to + count, end); at++) {
        const place = from + at - to
        const block = Math.floor(place / this.#span)
        if (block !== index && !this.blocks.has(block) && !this.#uncertain.has(block))
          yield { granule: at - first, from: place }
      }
    }
  }

  /** The first repeat that ends behind a granule. */
  #firstBehind(granule: number): number {
    let [low, high] = [0, this.#repeats.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      const { to, count } = this.#repeats[middle]!
      if (to + count <= granule) low = middle + 1
      else high = middle
    }
    return low
  }
}
