import { Bitmap } from '../../../protocol/bitmap.ts'
import { openDevice } from '../../disk/file-device.ts'
import type { HashPool } from '../../disk/hash-pool.ts'
import { ImageDisk } from '../../disk/image-disk.ts'
import { assertFits } from '../../restore/fit.ts'
import { scanDisk } from '../../restore/scan.ts'
import { DiskSource } from '../../store/disk-source.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'

/** What is to be offered: a release on a disk, and whether the disk is known to hold all of it. */
export interface Offer {
  readonly manifest: VerifiedManifest
  readonly path: string
  /** False: a scan finds first what the disk holds of the release. */
  readonly whole: boolean
}

/** What {@link openSource} works with. */
interface OpenSourceOptions {
  readonly machine: Machine
  readonly offer: Offer
  /** Hashes the disk if it is not known to be whole. */
  readonly pool: HashPool
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
}

/**
 * Opens what is offered, read-only, until the stack ends. Returns undefined, with a note, if the hash tree is not here yet.
 * Errors: DISK_TOO_SMALL and others of the disk, TREE_CORRUPT, INTERRUPTED.
 */
export async function openSource(
  { machine, offer, pool, report, signal }: OpenSourceOptions,
  stack: AsyncDisposableStack,
): Promise<DiskSource | undefined> {
  const trees = new TreeStore(machine.home.path('trees'))
  if (!(await trees.has(offer.manifest))) {
    report({ type: 'note', text: 'nothing can be served yet: run `mesh restore` on this machine first' })
    return undefined
  }
  const device = stack.adopt(await openDevice(offer.path, { writable: false }), (it) => it.close())
  assertFits(device, offer.manifest)
  const tree = stack.adopt(await trees.open(offer.manifest), (it) => it.close())
  const held = new Bitmap(tree.geometry.blockCount)
  held.setRange(0, held.length)
  for (const [start, end] of offer.manifest.preserve.runs()) held.clearRange(start, end)
  if (!offer.whole) {
    const { dirty } = await scanDisk({
      pool,
      path: offer.path,
      tree,
      preserve: offer.manifest.preserve,
      phase: 'scan',
      progress: (progress) => report({ type: 'progress', ...progress }),
      signal,
    })
    for (const block of dirty.values()) held.clear(block)
  }
  return new DiskSource({ disk: new ImageDisk(device, offer.manifest), tree, held })
}

/** The release that a machine has on its disk, and what it offers of it. */
export interface HeldRelease {
  readonly manifest: VerifiedManifest
  readonly source: DiskSource
}
