import { setImmediate as nextTurn } from 'node:timers/promises'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { type Digest, sameBytes, toHex, zeroDigest } from '../../../protocol/digest.ts'
import { isNoDigest } from '../../../protocol/hash-tree.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { changedBlocks } from '../../store/changed-blocks.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { SERVE_SLICE_MS } from '../../store/limits.ts'
import type { Stage } from '../../store/stage.ts'
import type { TreeFile } from '../../store/tree-file.ts'

/** What a {@link StagePlan} is made from. */
interface StagePlanOptions {
  /** Tree of the coming release. */
  readonly tree: TreeFile
  /** The disk, with the release that is on it. */
  readonly source: DiskSource
  readonly stage: Stage
  /** Blocks that the stage may hold. */
  readonly capacity: number
}

/**
 * What a machine has to put aside so that it can switch to a release without any other machine. That is content which is not zeros,
 * and which no block of its disk holds that stays as it is. Each content counts once. The plan takes as many contents as fit, in
 * the order of the tree.
 */
export class StagePlan {
  /** Blocks that are other ones in the release than on the disk. */
  readonly changed: RangeSet
  /** Blocks to fetch, and blocks whose content stands on the disk, where it will be overwritten. */
  readonly fetch: Bitmap
  readonly copy: Bitmap
  /** Blocks of the release that are here, on the disk or in the stage. */
  readonly held: Bitmap
  /** The contents that the switch takes from the stage, as far as they fit (hexadecimal digests), and the blocks that have them. */
  readonly #needed = new Map<string, number[]>()
  /** Contents that do not fit. */
  left = 0
  readonly #options: StagePlanOptions

  private constructor(options: StagePlanOptions, changed: RangeSet) {
    const { blockCount } = options.tree.geometry
    this.#options = options
    this.changed = changed
    this.fetch = new Bitmap(blockCount)
    this.copy = new Bitmap(blockCount)
    this.held = Bitmap.fromRanges(blockCount, options.source.held().intersect(RangeSet.of(0, blockCount)))
    for (const [start, end] of changed.runs()) this.held.clearRange(start, end)
  }

  /** Plans for changed blocks first, then for those that a session has dirtied. Errors: TREE_CORRUPT, DISK_IO. */
  static async make(options: StagePlanOptions): Promise<StagePlan> {
    const { tree, source } = options
    const changed = await changedBlocks(source.tree, tree)
    const plan = new StagePlan(options, changed)
    await plan.add(changed.values())
    const untouched = RangeSet.of(0, tree.geometry.blockCount).subtract(changed)
    await plan.add(untouched.subtract(source.held()).values())
    return plan
  }

  /** How many contents are needed, those that do not fit included. */
  get wanted(): number {
    return this.#needed.size + this.left
  }

  /** How many contents the stage has to hold, as far as they fit, and how many of these it holds. */
  get planned(): number {
    return this.#needed.size
  }

  get staged(): number {
    let count = 0
    for (const key of this.#needed.keys()) if (this.#options.stage.has(Buffer.from(key, 'hex'))) count++
    return count
  }

  needs(digest: Digest): boolean {
    return this.#needed.has(toHex(digest))
  }

  /** Blocks of the release that have this content. */
  blocksWith(digest: Digest): readonly number[] {
    return this.#needed.get(toHex(digest)) ?? []
  }

  /** Plans for more blocks that are not on the disk as the release has them. */
  async add(blocks: Iterable<number>): Promise<void> {
    const { tree, stage, capacity } = this.#options
    const zero = zeroDigest(tree.geometry.blockSize)
    let sliceAt = performance.now()
    for (const index of blocks) {
      // Others are served meanwhile.
      if (performance.now() - sliceAt >= SERVE_SLICE_MS) {
        await nextTurn()
        sliceAt = performance.now()
      }
      const digest = Uint8Array.from(await tree.leaf(index))
      if (isNoDigest(digest) || sameBytes(digest, zero)) continue
      const key = toHex(digest)
      const same = this.#needed.get(key)
      if (same !== undefined) {
        same.push(index)
        if (stage.has(digest)) this.held.set(index)
        continue
      }
      const place = await this.#place(digest)
      if (place === 'stays') {
        this.held.set(index)
        continue
      }
      if (this.#needed.size >= capacity) {
        this.left++
        continue
      }
      this.#needed.set(key, [index])
      if (stage.has(digest)) this.held.set(index)
      else if (place === 'goes') this.copy.set(index)
      else this.fetch.set(index)
    }
  }

  /** Whether the content stands on the disk, and whether it will still do so while the release is written. */
  async #place(digest: Digest): Promise<'stays' | 'goes' | undefined> {
    const { source, tree } = this.#options
    if (source.blockSize !== tree.geometry.blockSize) return undefined
    let found: 'goes' | undefined
    for await (const index of source.places(digest)) {
      if (index < tree.geometry.blockCount && !this.changed.has(index)) return 'stays'
      found = 'goes'
    }
    return found
  }
}
