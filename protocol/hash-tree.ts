import assert from 'node:assert/strict'
import { DIGEST_SIZE_BYTES } from './constants.ts'
import { type Digest, digestOf, sameBytes } from './digest.ts'
import { countBlocks } from './units.ts'

/**
 * The hash tree of an image: SHA-256 over blocks, in the layout of dm-verity version 1 without salt and superblock,
 * with hash blocks as large as data blocks (https://docs.kernel.org/admin-guide/device-mapper/verity.html).
 * Level 0 is the data blocks. A page of level 1 packs the digests of consecutive blocks and ends in zeros. Each higher
 * level does the same with the pages below it. The top level has one page, whose digest is the root. The root of an
 * image of one block is the digest of that block.
 * Example: 1 GiB in blocks of 64 KiB has 16,384 blocks, 8 pages in level 1 and 1 page in level 2.
 */

/** Leaf of a preserved block. No content has this digest, so the block is never hashed, served or restored. */
export const NO_DIGEST: Digest = new Uint8Array(DIGEST_SIZE_BYTES)

/** Whether a leaf is that of a preserved block. */
export function isNoDigest(digest: Digest): boolean {
  return sameBytes(digest, NO_DIGEST)
}

/** Where the digest of a block or page is kept: slot `slot` of page `index` of `level`. */
interface Slot {
  readonly level: number
  readonly index: number
  readonly slot: number
}

/** The shape of the tree over an image of `size` bytes: everything that follows from sizes alone. */
export class TreeGeometry {
  readonly size: number
  readonly blockSize: number
  readonly blockCount: number
  readonly digestsPerPage: number
  /** Blocks, pages of level 1, pages of level 2, …, 1. */
  readonly #counts: readonly number[]
  /** First page of each level in a tree file, top level first. */
  readonly #firstPages: readonly number[]

  constructor(size: number, blockSize: number) {
    assert(Number.isSafeInteger(size) && size > 0, `image size ${size}`)
    assert(Number.isInteger(Math.log2(blockSize)) && blockSize >= 2 * DIGEST_SIZE_BYTES, `block size ${blockSize}`)
    this.size = size
    this.blockSize = blockSize
    this.blockCount = countBlocks(size, blockSize)
    this.digestsPerPage = blockSize / DIGEST_SIZE_BYTES
    const counts = [this.blockCount]
    while (counts.at(-1)! > 1) counts.push(Math.ceil(counts.at(-1)! / this.digestsPerPage))
    this.#counts = counts
    const firstPages = new Array<number>(counts.length).fill(0)
    for (let level = counts.length - 2; level >= 1; level--)
      firstPages[level] = firstPages[level + 1]! + counts[level + 1]!
    this.#firstPages = firstPages
  }

  /** Levels of pages: 0 when one block is the whole image. */
  get levels(): number {
    return this.#counts.length - 1
  }

  /** Pages of `level` (1 is the level right above the blocks). */
  pagesAt(level: number): number {
    assert(level >= 1 && level <= this.levels, `level ${level} of ${this.levels}`)
    return this.#counts[level]!
  }

  get pageCount(): number {
    return this.#counts.slice(1).reduce((sum, count) => sum + count, 0)
  }

  /** Bytes of a tree file. */
  get fileSize(): number {
    return this.pageCount * this.blockSize
  }

  /** Byte offset of a page in a tree file: the layout that `veritysetup --no-superblock` writes. */
  pageOffset(level: number, index: number): number {
    assert(index >= 0 && index < this.pagesAt(level), `page ${index} of level ${level}`)
    return (this.#firstPages[level]! + index) * this.blockSize
  }

  /** Digests in page `index` of `level`; the rest of the page is zeros. */
  digestsIn(level: number, index: number): number {
    assert(index >= 0 && index < this.pagesAt(level), `page ${index} of level ${level}`)
    return Math.min(this.digestsPerPage, this.#counts[level - 1]! - index * this.digestsPerPage)
  }

  /** Where the digest of item `index` of `level` is kept; undefined for the top, whose digest is the root. */
  parent(level: number, index: number): Slot | undefined {
    if (level >= this.levels) return undefined
    return { level: level + 1, index: Math.floor(index / this.digestsPerPage), slot: index % this.digestsPerPage }
  }
}

/** The digest in one slot of a page (a view, not a copy). */
export function pageDigest(page: Uint8Array, slot: number): Digest {
  return page.subarray(slot * DIGEST_SIZE_BYTES, (slot + 1) * DIGEST_SIZE_BYTES)
}

/** Builds the tree from block digests in order, keeping one unfinished page per level in memory. */
export class TreeBuilder {
  readonly #geometry: TreeGeometry
  readonly #emit: (level: number, index: number, page: Uint8Array) => void
  readonly #pages: Uint8Array[] = []
  /** Digests appended to each level so far. */
  readonly #appended: number[] = []
  #root: Digest | undefined

  /** `emit` gets every page once, when the page is complete, and may keep the buffer. */
  constructor(geometry: TreeGeometry, emit: (level: number, index: number, page: Uint8Array) => void) {
    this.#geometry = geometry
    this.#emit = emit
    for (let level = 0; level <= geometry.levels; level++) {
      this.#pages.push(new Uint8Array(level === 0 ? 0 : geometry.blockSize))
      this.#appended.push(0)
    }
  }

  /** Appends packed digests (a multiple of 32 bytes) of the next blocks. */
  append(digests: Uint8Array): void {
    assert(digests.byteLength % DIGEST_SIZE_BYTES === 0)
    assert(
      this.#appended[0]! + digests.byteLength / DIGEST_SIZE_BYTES <= this.#geometry.blockCount,
      'more digests than blocks',
    )
    for (let at = 0; at < digests.byteLength; at += DIGEST_SIZE_BYTES) {
      this.#put(0, digests.subarray(at, at + DIGEST_SIZE_BYTES))
    }
  }

  /** The root. The digests of all blocks must have been appended. */
  finish(): Digest {
    assert(this.#root !== undefined, `${this.#appended[0]} of ${this.#geometry.blockCount} digests appended`)
    return this.#root
  }

  /** Takes the digest of the next item of `level` into the level above. */
  #put(level: number, digest: Digest): void {
    const above = level + 1
    const index = this.#appended[level]!++
    if (level === this.#geometry.levels) {
      this.#root = Uint8Array.from(digest)
      return
    }
    const page = this.#pages[above]!
    const { slot, index: pageIndex } = this.#geometry.parent(level, index)!
    page.set(digest, slot * DIGEST_SIZE_BYTES)
    if (slot + 1 < this.#geometry.digestsIn(above, pageIndex)) return
    this.#pages[above] = new Uint8Array(this.#geometry.blockSize)
    this.#emit(above, pageIndex, page)
    this.#put(above, digestOf(page))
  }
}

/** Reads one page of a tree, already verified. */
type PageReader = (level: number, index: number) => Promise<Uint8Array>

interface ReadableTree {
  readonly root: Digest
  readonly read: PageReader
}

/**
 * Runs `[start, end)` of blocks whose digests differ between two trees of the same geometry, in ascending order. The
 * search goes from the root down and reads only pages whose digests differ, so its cost follows the difference and not
 * the image.
 */
export async function* diffTrees(
  geometry: TreeGeometry,
  a: ReadableTree,
  b: ReadableTree,
): AsyncGenerator<readonly [number, number]> {
  if (sameBytes(a.root, b.root)) return
  let open: [number, number] | undefined
  for await (const block of differingBlocks(geometry, a, b, geometry.levels, 0)) {
    if (open !== undefined && open[1] === block) open[1]++
    else {
      if (open !== undefined) yield open
      open = [block, block + 1]
    }
  }
  if (open !== undefined) yield open
}

async function* differingBlocks(
  geometry: TreeGeometry,
  a: ReadableTree,
  b: ReadableTree,
  level: number,
  index: number,
): AsyncGenerator<number> {
  if (level === 0) {
    yield index
    return
  }
  const [pageA, pageB] = await Promise.all([a.read(level, index), b.read(level, index)])
  const count = geometry.digestsIn(level, index)
  for (let slot = 0; slot < count; slot++) {
    if (sameBytes(pageDigest(pageA, slot), pageDigest(pageB, slot))) continue
    yield* differingBlocks(geometry, a, b, level - 1, index * geometry.digestsPerPage + slot)
  }
}
