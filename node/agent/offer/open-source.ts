import { Bitmap } from '../../../protocol/bitmap.ts'
import { openDevice } from '../../disk/file-device.ts'
import type { HashPool } from '../../disk/hash-pool.ts'
import { ImageDisk } from '../../disk/image-disk.ts'
import { scanDisk } from '../../restore/scan.ts'
import { DiskSource } from '../../store/disk-source.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'

/** What a service offers: an image on a disk, and whether that is known to be whole. */
export interface Offer {
  readonly manifest: VerifiedManifest
  readonly path: string
  /** False: what the disk holds of the image is found by a scan first. */
  readonly whole: boolean
}

/** Opens what is offered, read-only, until the stack ends; undefined, with a note, if the hash tree is not here yet. */
export async function openSource(
  machine: Machine,
  offer: Offer,
  pool: HashPool,
  options: AgentOptions,
  stack: AsyncDisposableStack,
): Promise<DiskSource | undefined> {
  const trees = new TreeStore(machine.state.path('trees'))
  if (!(await trees.has(offer.manifest))) {
    options.report({ type: 'note', text: 'nothing can be served yet: run `mesh restore` on this machine first' })
    return undefined
  }
  const device = stack.adopt(await openDevice(offer.path, { writable: false }), (it) => it.close())
  const tree = stack.adopt(await trees.open(offer.manifest), (it) => it.close())
  const held = new Bitmap(tree.geometry.blockCount)
  held.setRange(0, held.length)
  for (const [start, end] of offer.manifest.preserve.runs()) held.clearRange(start, end)
  if (!offer.whole) {
    const { report, signal } = options
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
export interface HeldStatus {
  readonly manifest: VerifiedManifest
  readonly source: DiskSource
}
