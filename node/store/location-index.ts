import assert from 'node:assert/strict'
import { DIGEST_SIZE_BYTES } from '../../protocol/constants.ts'
import { type Digest, sameBytes } from '../../protocol/digest.ts'
import { isNoDigest } from '../../protocol/hash-tree.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { TreeFile } from './tree-file.ts'

/** Leaves read at a time while building. */
const STEP = 8192
/** Blocks in one bucket on average, if no two blocks were equal. */
const BUCKET_LOAD = 8
const ENTRY_BITS = 32
const MAX_BUCKET_BITS = 24

/**
 * Finds blocks by content: digest → indices in one tree. It takes 4 bytes for each block, and about half a byte more
 * for the table of buckets. The first bits of a digest choose the bucket. An entry is the index of the block and, in
 * the bits that the index leaves free, more of the digest, so that hardly a leaf is read in vain. Each find is compared
 * with the leaves of the tree. Preserved blocks have no content and are left out.
 */
export class LocationIndex {
  readonly #tree: TreeFile
  readonly #hashing: Hashing
  /** The first entry of each bucket, and behind the last bucket the number of entries. */
  readonly #starts: Uint32Array
  readonly #entries: Uint32Array

  private constructor(tree: TreeFile, hashing: Hashing, starts: Uint32Array, entries: Uint32Array) {
    this.#tree = tree
    this.#hashing = hashing
    this.#starts = starts
    this.#entries = entries
  }

  /** Indexes `blocks`, by default all of the tree. Reads its leaves twice: to size the buckets, then to fill them. */
  static async build(tree: TreeFile, blocks = RangeSet.of(0, tree.geometry.blockCount)): Promise<LocationIndex> {
    assert(blocks.end <= 2 ** ENTRY_BITS, `${blocks.end} blocks`)
    const hashing = new Hashing(blocks)
    const starts = new Uint32Array(hashing.buckets + 1)
    await eachLeaf(tree, blocks, (digests, at) => {
      starts[hashing.bucketOf(digests, at) + 1]! += 1
    })
    for (let bucket = 0; bucket < hashing.buckets; bucket++) starts[bucket + 1]! += starts[bucket]!
    const entries = new Uint32Array(starts[hashing.buckets]!)
    const filled = starts.slice(0, hashing.buckets)
    await eachLeaf(tree, blocks, (digests, at, block) => {
      entries[filled[hashing.bucketOf(digests, at)]!++] = hashing.tagOf(digests, at) * hashing.span + block
    })
    return new LocationIndex(tree, hashing, starts, entries)
  }

  /** Blocks whose content in this tree has `digest`, in ascending order. */
  async *find(digest: Digest): AsyncGenerator<number> {
    const { span } = this.#hashing
    const bucket = this.#hashing.bucketOf(digest, 0)
    const tag = this.#hashing.tagOf(digest, 0)
    for (let i = this.#starts[bucket]!; i < this.#starts[bucket + 1]!; i++) {
      const entry = this.#entries[i]!
      if (Math.floor(entry / span) !== tag) continue
      const block = entry % span
      if (sameBytes(await this.#tree.leaf(block), digest)) yield block
    }
  }
}

/** How digests are spread: the first four bytes give the bucket, the next four the tag. */
class Hashing {
  readonly buckets: number
  /** Entries are `tag * span + block`. */
  readonly span: number
  readonly #tags: number

  constructor(blocks: RangeSet) {
    const bucketBits = Math.ceil(Math.log2(Math.max(1, blocks.count / BUCKET_LOAD)))
    this.buckets = 2 ** Math.min(MAX_BUCKET_BITS, bucketBits)
    this.span = 2 ** Math.ceil(Math.log2(Math.max(1, blocks.end)))
    this.#tags = 2 ** ENTRY_BITS / this.span
  }

  bucketOf(digests: Uint8Array, at: number): number {
    return Math.floor(wordAt(digests, at) / (2 ** 32 / this.buckets))
  }

  tagOf(digests: Uint8Array, at: number): number {
    return Math.floor(wordAt(digests, at + 4) / (2 ** 32 / this.#tags))
  }
}

function wordAt(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
}

/**
 * Calls `visit` with each block and the place of its digest in `digests`. There may be millions of blocks, so no view
 * is made for each.
 */
async function eachLeaf(
  tree: TreeFile,
  blocks: RangeSet,
  visit: (digests: Uint8Array, at: number, block: number) => void,
): Promise<void> {
  for (const [start, end] of blocks.runs()) {
    for (let first = start; first < end; first += STEP) {
      const count = Math.min(STEP, end - first)
      const digests = await tree.leaves(first, count)
      for (let i = 0; i < count; i++) {
        const at = i * DIGEST_SIZE_BYTES
        if (wordAt(digests, at) === 0 && isNoDigest(digests.subarray(at, at + DIGEST_SIZE_BYTES))) continue
        visit(digests, at, first + i)
      }
    }
  }
}
