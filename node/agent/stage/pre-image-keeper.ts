import { digestOf, sameBytes, toHex } from '../../../protocol/digest.ts'
import { DirtiedCounts } from '../../store/dirtied-counts.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { KEEP_AT_RESTORE_BYTES } from '../../store/limits.ts'
import { PreImages } from '../../store/pre-images.ts'
import { Stage } from '../../store/stage.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { pause } from '../machine/pause.ts'
import { STAGE_FLUSH_BYTES, STAGE_IN_USE_RATE } from './limits.ts'

interface PreImageKeeperOptions {
  /** The stage's directory. */
  readonly directory: string
  /** The release on the disk, and the disk as it is offered. */
  readonly manifest: VerifiedManifest
  readonly source: DiskSource
  /** Bytes that the stage may take. */
  readonly space: number
  /** Whether somebody uses the machine at this moment. */
  readonly inUse: () => boolean
  readonly signal: AbortSignal
}

/**
 * Puts the stage in order while the machine runs and no newer release waits. It drops what is of no use, moves the rest together, and
 * copies from the disk the content of blocks that sessions dirtied before, the oftenest first, as long as the disk has it. Some room
 * is left, so that the next restore can keep what it fetches.
 */
export class PreImageKeeper {
  readonly #options: PreImageKeeperOptions

  constructor(options: PreImageKeeperOptions) {
    this.#options = options
  }

  /** Ends when all is copied that the disk has, or when the signal is aborted. Errors: TREE_CORRUPT, DISK_IO, DISK_FULL, FORMAT_NEWER. */
  async run(): Promise<void> {
    const { directory, manifest, source, space } = this.#options
    const { blockSize } = manifest
    const counts = await DirtiedCounts.load(directory, manifest)
    const there = await Stage.openIfThere(directory, blockSize)
    if (there === undefined && counts.size === 0) return
    await using stack = new AsyncDisposableStack()
    const stage = stack.adopt(there ?? (await Stage.open(directory, blockSize)), (it) => it.close())
    const capacity = await stage.capacity(space)
    const most = capacity - Math.min(Math.ceil(KEEP_AT_RESTORE_BYTES / blockSize), Math.floor(capacity / 2))
    const images = new PreImages({ stage, counts, tree: source.tree, capacity })
    const worth = await images.worthMost(most)
    await stage.retain((digest) => worth.has(toHex(digest)))
    await stage.compact()
    await this.#copy(images, stage, most)
  }

  async #copy(images: PreImages, stage: Stage, most: number): Promise<void> {
    const { source, inUse, signal } = this.#options
    const { blockSize } = stage
    let unflushed = 0
    for await (const { index, digest } of images.missing()) {
      if (signal.aborted || stage.count >= most) break
      if (!source.holdsBlock(index)) continue
      const data = await source.disk.readBlock(index)
      // The session may have written to it since.
      if (!sameBytes(digestOf(data), digest)) continue
      await stage.add(digest, data)
      unflushed += blockSize
      if (unflushed >= STAGE_FLUSH_BYTES) {
        await stage.flush()
        unflushed = 0
      }
      if (inUse()) await pause((blockSize / STAGE_IN_USE_RATE) * 1000, signal)
    }
    await stage.flush()
  }
}
