import { toHex } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import type { HashPool } from '../disk/hash-pool.ts'
import type { ReportProgress } from '../disk/progress.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { VerifiedManifest } from '../trust/verified-manifest.ts'
import { assertLargeEnough } from './fit.ts'
import { scanDisk } from './scan.ts'

/** Result of `mesh verify`. */
export interface VerifyReport {
  readonly event: 'verify'
  readonly verified: boolean
  readonly image: string
  readonly release: number
  readonly root: string
  readonly blocks: { readonly total: number; readonly different: number }
  /** Runs [start, end) of blocks that differ; the first 1000. */
  readonly ranges: readonly (readonly [number, number])[]
  readonly seconds: number
}

const MAX_RANGES_REPORTED = 1000

/** Compares every block of a disk with the release; writes nothing. Errors: STATE_MISSING if the tree is not here. */
export async function verifyDisk(options: {
  device: BlockDevice
  manifest: VerifiedManifest
  trees: TreeStore
  pool: HashPool
  progress: ReportProgress
  signal: AbortSignal
}): Promise<VerifyReport> {
  const { device, manifest, trees } = options
  const startedAt = performance.now()
  assertLargeEnough(device, manifest)
  if (!(await trees.has(manifest))) {
    throw new MeshError(
      'STATE_MISSING',
      `the hash tree of ${manifest.image} release ${manifest.release} is not on this machine yet`,
    )
  }
  const tree = await trees.open(manifest)
  try {
    const { dirty } = await scanDisk({
      ...options,
      path: device.path,
      tree,
      preserve: manifest.preserve,
      phase: 'verify',
    })
    return {
      event: 'verify',
      verified: dirty.count === 0,
      image: manifest.image,
      release: manifest.release,
      root: toHex(manifest.root),
      blocks: { total: tree.geometry.blockCount, different: dirty.count },
      ranges: [...dirty.toRanges().runs().take(MAX_RANGES_REPORTED)],
      seconds: Math.round(performance.now() - startedAt) / 1000,
    }
  } finally {
    await tree.close()
  }
}
