import { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, sameBytes, toHex, zeroDigest } from '../../protocol/digest.ts'
import { isNoDigest } from '../../protocol/hash-tree.ts'
import type { DirtiedCounts } from './dirtied-counts.ts'
import type { Stage } from './stage.ts'
import type { TreeFile } from './tree-file.ts'

interface PreImagesOptions {
  readonly stage: Stage
  readonly counts: DirtiedCounts
  /** Tree of the release that the pre-images belong to. */
  readonly tree: TreeFile
  /** Blocks that the stage may hold. */
  readonly capacity: number
}

/**
 * Pre-images: the right content of blocks that sessions dirtied before, kept in the stage, so that the next session is undone without
 * another machine (docs/decisions/0028-pre-images.md). What is worth most is what was dirtied oftenest.
 */
export class PreImages {
  readonly #options: PreImagesOptions
  readonly #zero: Digest

  constructor(options: PreImagesOptions) {
    this.#options = options
    this.#zero = zeroDigest(options.tree.geometry.blockSize)
  }

  /**
   * Which of the dirty blocks are worth keeping, at most `most` of them besides those that are here. Blocks that were dirtied more
   * rarely make room for them, as long as no dirty block needs their content now. Errors: TREE_CORRUPT, DISK_IO.
   */
  async choose(dirty: Bitmap, most: number): Promise<Bitmap> {
    const { stage, counts, capacity } = this.#options
    const chosen = new Bitmap(dirty.length)
    const missing: number[] = []
    const needed = new Set<string>()
    for (const index of counts.oftenestFirst()) {
      if (index >= dirty.length || !dirty.has(index)) continue
      const digest = await this.#digestOf(index)
      if (digest === undefined) continue
      needed.add(toHex(digest))
      // Content that is here, and turns out to be damaged, is kept anew.
      if (stage.has(digest)) chosen.set(index)
      else if (missing.length < most) missing.push(index)
    }
    const room = await this.#makeRoom(missing, needed)
    for (const index of missing.slice(0, Math.min(room, capacity))) chosen.set(index)
    return chosen
  }

  /** Digests of the pre-images that are worth most, hexadecimal, at most `most`. Errors: TREE_CORRUPT, DISK_IO. */
  async worthMost(most: number): Promise<Set<string>> {
    const digests = new Set<string>()
    for (const index of this.#options.counts.oftenestFirst()) {
      if (digests.size >= most) break
      const digest = await this.#digestOf(index)
      if (digest !== undefined) digests.add(toHex(digest))
    }
    return digests
  }

  /** Blocks whose pre-images are worth keeping and not here, the oftenest dirtied first. Errors: TREE_CORRUPT, DISK_IO. */
  async *missing(): AsyncGenerator<{ readonly index: number; readonly digest: Digest }> {
    for (const index of this.#options.counts.oftenestFirst()) {
      const digest = await this.#digestOf(index)
      if (digest !== undefined && !this.#options.stage.has(digest)) yield { index, digest }
    }
  }

  /** Drops what was dirtied more rarely than the blocks to be kept. Returns how many of them there is room for. */
  async #makeRoom(missing: readonly number[], needed: ReadonlySet<string>): Promise<number> {
    const { stage, counts, capacity } = this.#options
    const rarest = missing.at(-1)
    if (rarest === undefined) return 0
    for (const index of counts.oftenestFirst().reverse()) {
      if (capacity - stage.count >= missing.length || counts.score(index) >= counts.score(rarest)) break
      const digest = await this.#digestOf(index)
      if (digest !== undefined && !needed.has(toHex(digest))) await stage.drop(digest)
    }
    return Math.max(0, capacity - stage.count)
  }

  /** Undefined for a block of zeros, for a preserved one, and for one behind the image: nothing has to be kept of it. */
  async #digestOf(index: number): Promise<Digest | undefined> {
    const { tree } = this.#options
    if (index >= tree.geometry.blockCount) return undefined
    const digest = Uint8Array.from(await tree.leaf(index))
    return isNoDigest(digest) || sameBytes(digest, this.#zero) ? undefined : digest
  }
}
