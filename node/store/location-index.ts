import assert from 'node:assert/strict'
import { DIGEST_SIZE_BYTES } from '../../protocol/constants.ts'
import { type Digest, sameBytes } from '../../protocol/digest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { TreeFile } from './tree-file.ts'

/** Leaves read at a time while building. */
const STEP = 8192
/** A key is a whole number below 2^53: 21 bits of the digest, then 32 bits of block index. */
const INDEX_SPAN = 2 ** 32

/**
 * Finds blocks by content: digest → indices in one tree. Keeps 8 bytes per block, sorted by the first bits of the
 * digest; candidates are compared with the leaves themselves.
 */
export class LocationIndex {
  readonly #tree: TreeFile
  readonly #keys: Float64Array

  private constructor(tree: TreeFile, keys: Float64Array) {
    this.#tree = tree
    this.#keys = keys
  }

  /** Indexes `blocks`, by default all of the tree. */
  static async build(tree: TreeFile, blocks = RangeSet.of(0, tree.geometry.blockCount)): Promise<LocationIndex> {
    assert(blocks.end <= INDEX_SPAN)
    const keys = new Float64Array(blocks.count)
    let filled = 0
    for (const [start, end] of blocks.runs()) {
      for (let first = start; first < end; first += STEP) {
        const count = Math.min(STEP, end - first)
        const digests = await tree.leaves(first, count)
        for (let i = 0; i < count; i++)
          keys[filled++] = prefixOf(digests, i * DIGEST_SIZE_BYTES) * INDEX_SPAN + first + i
      }
    }
    return new LocationIndex(tree, keys.sort())
  }

  /** Blocks whose content in this tree has `digest`, in ascending order. */
  async *find(digest: Digest): AsyncGenerator<number> {
    const low = prefixOf(digest, 0) * INDEX_SPAN
    for (let i = this.#firstNotBelow(low); i < this.#keys.length && this.#keys[i]! < low + INDEX_SPAN; i++) {
      const block = this.#keys[i]! - low
      if (sameBytes(await this.#tree.leaf(block), digest)) yield block
    }
  }

  #firstNotBelow(key: number): number {
    let low = 0
    let high = this.#keys.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#keys[middle]! < key) low = middle + 1
      else high = middle
    }
    return low
  }
}

function prefixOf(digests: Uint8Array, at: number): number {
  return (digests[at]! << 13) | (digests[at + 1]! << 5) | (digests[at + 2]! >>> 3)
}
