import type { BlockDevice } from '../../node/disk/block-device.ts'
import type { HashPool } from '../../node/disk/hash-pool.ts'
import { restore } from '../../node/restore/restore.ts'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import type { WriteLog } from '../../node/writelog/write-log.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { ImageFetcher } from './image-fetcher.ts'
import type { Model, Release } from './model.ts'

interface RestoreOnceOptions {
  readonly device: BlockDevice
  /** The log; it is not opened yet. */
  readonly log: WriteLog
  readonly model: Model
  readonly release: Release
  readonly pool: HashPool
  /** Blocks after which the peers have no more. */
  readonly blocksToFetch: number
  /** Called with a block that is wrong though the log called it clean. */
  readonly onLogMiss: (block: number) => void
  /** Random numbers in [0, 1) that choose the blocks of the audit. */
  readonly random: () => number
}

/**
 * Makes one restore as the agent makes it, and closes the log. Undefined if it ended because peers had no more blocks.
 */
export async function restoreOnce(options: RestoreOnceOptions): Promise<RestoreResult | undefined> {
  const { device, log, model, release, blocksToFetch, pool, onLogMiss, random } = options
  try {
    const receipt = await restore({
      manifest: release.manifest,
      target: { device, log },
      sources: {
        trees: model.trees,
        others: model.releases.map(({ manifest }) => manifest),
        fetcher: async () => new ImageFetcher(release.image, blocksToFetch),
      },
      steps: { beforeWriting: async () => undefined, onLogMiss },
      pool,
      names: { machine: 'pc1', nameOf: (id) => id },
      progress: () => undefined,
      signal: new AbortController().signal,
      random,
    })
    await log.close()
    return receipt
  } catch (error) {
    if (!isMeshError(error, 'BLOCKS_UNAVAILABLE')) throw error
    await log.close()
    return undefined
  }
}
