import type { Bitmap } from '../../protocol/bitmap.ts'
import { wantedBytes } from '../../protocol/granules.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { DiskSource } from '../store/disk-source.ts'
import type { WriteLog } from '../writelog/write-log.ts'
import type { ProvidedBlock } from './block-provider.ts'
import { RESTORE_BATCH_BLOCKS, RESTORE_BATCH_BYTES, RESTORE_WRITING_BYTES } from './limits.ts'

interface BlockWriterOptions {
  readonly disk: ImageDisk
  readonly log: WriteLog
  /** Blocks that may be wrong. The writer clears those that it has put right. */
  readonly dirty: Bitmap
  readonly source: DiskSource
  /** Called after each batch. */
  readonly report: () => void
}

/**
 * Writes blocks to the disk in batches. The durable order: write → flush the disk → clear the log → only then call the
 * blocks clean (docs/DURABILITY.md, "Restore"). Peers may get a block as soon as it is written: it is read and hashed
 * again for them.
 */
export class BlockWriter {
  readonly #options: BlockWriterOptions
  #batch: number[] = []
  #bytes = 0
  /** Writes under way. */
  readonly #writes = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined

  constructor(options: BlockWriterOptions) {
    this.#options = options
  }

  /**
   * Takes all blocks. If their source fails, the blocks taken until then are flushed and cleared before the failure is
   * passed on.
   */
  async write(blocks: AsyncIterable<ProvidedBlock>): Promise<void> {
    this.#options.report()
    try {
      for await (const block of blocks) {
        this.#begin(block)
        while (this.#writes.size * block.data.byteLength >= RESTORE_WRITING_BYTES) await Promise.race(this.#writes)
        if (this.#bytes >= RESTORE_BATCH_BYTES || this.#batch.length >= RESTORE_BATCH_BLOCKS) await this.#checkpoint()
      }
    } finally {
      await this.#checkpoint()
    }
  }

  /**
   * Resolves when all blocks taken until now are written, though not flushed. A write that failed resolves, too:
   * `write` reports it.
   */
  async written(): Promise<void> {
    await Promise.all(this.#writes)
  }

  #begin({ index, data, granules }: ProvidedBlock): void {
    const { disk, source } = this.#options
    const write = (granules === undefined ? disk.writeBlock(index, data) : disk.writeGranules(index, data, granules))
      .then(() => source.gained(index))
      // The failure is reported by the next checkpoint, which no block gets past.
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#writes.delete(write))
    this.#batch.push(index)
    this.#bytes += wantedBytes(granules, data.byteLength)
    this.#writes.add(write)
  }

  async #checkpoint(): Promise<void> {
    const { disk, log, dirty, report } = this.#options
    await this.written()
    if (this.#failure !== undefined) throw this.#failure.error
    if (this.#batch.length === 0) return
    const batch = this.#batch
    this.#batch = []
    this.#bytes = 0
    await disk.flush()
    for (const index of batch) dirty.clear(index)
    await log.clear(this.#clearable(batch))
    report()
  }

  /**
   * Units of the log in which nothing is dirty any more. A unit may hold several blocks, or be part of
   * one.
   */
  #clearable(batch: readonly number[]): RangeSet {
    const { disk, log, dirty } = this.#options
    const { blockSize } = disk
    const runs: Run[] = []
    for (const index of batch) {
      const first = Math.floor((index * blockSize) / log.unitSize)
      const end = Math.ceil(((index + 1) * blockSize) / log.unitSize)
      const blockAfter = Math.min(Math.ceil((end * log.unitSize) / blockSize), dirty.length)
      const nextDirty = dirty.nextSet(Math.floor((first * log.unitSize) / blockSize))
      if (nextDirty === -1 || nextDirty >= blockAfter) runs.push([first, end])
    }
    return RangeSet.from(runs)
  }
}
