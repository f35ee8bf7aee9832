import type { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, sameBytes } from '../../protocol/digest.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import { type ByteCount, byteCount } from '../../protocol/units.ts'
import type { ContentRequest, Deliver, Holding, HoldingChange } from './block-source.ts'
import { ChangeTeller } from './change-teller.ts'
import type { DiskSource } from './disk-source.ts'
import type { Stage } from './stage.ts'
import type { TreeFile } from './tree-file.ts'

/**
 * Blocks of a release that is not on the disk yet: those that are staged, and those that the disk has already. The
 * disk's own source gives out the latter, so it must be offered, too.
 */
export class StagedSource implements Holding {
  readonly root: Digest
  readonly size: ByteCount
  readonly blockSize: ByteCount
  readonly #tree: TreeFile
  readonly #stage: Stage
  readonly #held: Bitmap
  readonly #changes = new ChangeTeller((index) => this.#held.has(index))
  readonly #stop: () => void

  /**
   * `changed`: blocks that differ from the release on the disk. `held`: blocks of the coming release that are here now.
   */
  constructor(options: { tree: TreeFile; stage: Stage; disk: DiskSource; changed: RangeSet; held: Bitmap }) {
    const { tree, disk, changed } = options
    this.#tree = tree
    this.#stage = options.stage
    this.#held = options.held
    this.root = tree.root
    this.size = byteCount(tree.geometry.size)
    this.blockSize = byteCount(tree.geometry.blockSize)
    this.#stop = disk.onChange(({ gained, lost }) => {
      for (const index of gained.subtract(changed).values()) this.gained(index)
      for (const index of lost.subtract(changed).values()) void this.#lostOnDisk(index)
    })
  }

  held(): RangeSet {
    return this.#held.toRanges()
  }

  async has(digest: Digest): Promise<boolean> {
    return this.#stage.has(digest)
  }

  async getMany(requests: readonly ContentRequest[], deliver: Deliver): Promise<void> {
    for (const [at, { digest, level, index }] of requests.entries()) {
      if (level === 0) {
        // Every holding is asked in turn, so content that is not in the stage may still be found on the disk.
        deliver(at, await this.#stage.read(digest))
        continue
      }
      const expected = await this.#tree.digestOf(level, index)
      const hinted = expected !== undefined && sameBytes(expected, digest)
      deliver(at, hinted ? await this.#tree.page(level, index).catch(() => undefined) : undefined)
    }
  }

  onChange(listener: (change: HoldingChange) => void): () => void {
    return this.#changes.onChange(listener)
  }

  /** The block was staged, or is on the disk. */
  gained(index: number): void {
    if (this.#held.set(index)) this.#changes.changed(index)
  }

  lost(index: number): void {
    if (this.#held.clear(index)) this.#changes.changed(index)
  }

  close(): void {
    this.#stop()
  }

  async #lostOnDisk(index: number): Promise<void> {
    const digest = await Promise.resolve(this.#tree.leaf(index)).catch(() => undefined)
    if (digest === undefined || !this.#stage.has(digest)) this.lost(index)
  }
}
