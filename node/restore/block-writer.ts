import type { Bitmap } from '../../protocol/bitmap.ts'
import { RESTORE_BATCH_BYTES } from '../../protocol/constants.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { DiskSource } from '../store/disk-source.ts'
import type { WriteLog } from '../writelog/write-log.ts'
import type { ProvidedBlock } from './block-provider.ts'

/**
 * Groups blocks for writing. If the source fails, what it gave until then is still passed on before the failure is, so
 * that nothing fetched is lost.
 */
export async function* inBatches(
  blocks: AsyncIterable<ProvidedBlock>,
  blockSize: number,
): AsyncGenerator<ProvidedBlock[]> {
  const size = Math.max(1, Math.floor(RESTORE_BATCH_BYTES / blockSize))
  let batch: ProvidedBlock[] = []
  let failure: { error: unknown } | undefined
  try {
    for await (const block of blocks) {
      batch.push(block)
      if (batch.length < size) continue
      yield batch
      batch = []
    }
  } catch (error) {
    failure = { error }
  }
  if (batch.length > 0) yield batch
  if (failure !== undefined) throw failure.error
}

/**
 * The durable order of a restore: write → flush the disk → clear the log → only then call the blocks clean and serve them
 * (docs/DURABILITY.md, "Restore").
 */
export async function writeBatches(
  batches: AsyncIterable<readonly ProvidedBlock[]>,
  to: { disk: ImageDisk; log: WriteLog; dirty: Bitmap; source: DiskSource; report: () => void },
): Promise<void> {
  const { disk, log, dirty, source } = to
  const perBlock = disk.blockSize / log.granuleSize
  to.report()
  for await (const batch of batches) {
    await Promise.all(batch.map(({ index, data }) => disk.writeBlock(index, data)))
    await disk.flush()
    await log.clear(RangeSet.from(batch.map(({ index }) => [index * perBlock, (index + 1) * perBlock])))
    for (const { index } of batch) {
      dirty.clear(index)
      source.gained(index)
    }
    to.report()
  }
}
