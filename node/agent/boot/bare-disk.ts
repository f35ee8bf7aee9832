import { MIN_LAYOUT_BYTES } from '../../../protocol/disk-layout.ts'
import { byteCount } from '../../../protocol/units.ts'
import { chooseFixedDisk, type FixedDisk, fixedDisks } from '../../disk/fixed-disks.ts'
import type { KnownDisk } from '../../disk/known-disk.ts'
import { type DiskPlan, planDisk } from '../../disk/plan-disk.ts'
import { assertFits } from '../../restore/fit.ts'
import { assertImagesFit, siteLayout } from '../../trust/site-layout.ts'
import type { TrustView } from '../../trust/trusted-view.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { DiskToLayOut } from '../mesh/settle.ts'
import { partitionNode } from './lay-out-disk.ts'

/** The disk of a bare machine: what it is to become is known as soon as the site’s metadata are. */
export class BareDisk implements DiskToLayOut {
  readonly disk: FixedDisk
  #plan: DiskPlan | undefined

  constructor(disk: FixedDisk) {
    this.disk = disk
  }

  /** The disk of this computer that is to be laid out. Errors: those of {@link chooseFixedDisk}. */
  static async find(named?: string): Promise<BareDisk> {
    return new BareDisk(chooseFixedDisk(await fixedDisks(), MIN_LAYOUT_BYTES, named))
  }

  /** What the disk is to become. */
  get plan(): DiskPlan {
    if (this.#plan === undefined) throw new Error('the layout of the site is not known yet')
    return this.#plan
  }

  /** Errors: LAYOUT_MISSING, LAYOUT_INVALID, FORMAT_NEWER, IMAGE_UNKNOWN, DISK_TOO_SMALL, DISK_SECTORS. */
  choose(view: TrustView): VerifiedManifest {
    const layout = siteLayout(view)
    const manifests = assertImagesFit(view, layout)
    const plan = planDisk(layout, this.disk)
    for (const [{ image }, manifest] of manifests) {
      const { number, size } = plan.partitions.find((one) => one.image === image)!
      const path = partitionNode(this.disk.path, number)
      assertFits({ path, size: byteCount(size), sectorSize: this.disk.sectorBytes }, manifest)
    }
    this.#plan = plan
    return manifests.get(layout.partitions[0]!)!
  }

  /** The partitions of images, and what they will be known by; `whole`: what the disk is known by. */
  targets({ link: _, ...whole }: KnownDisk): ReturnType<DiskToLayOut['targets']> {
    return this.plan.partitions.flatMap(({ number, size, uuid, image, system = false }) => {
      if (image === undefined) return []
      const facts = { ...whole.facts, partition: uuid, partitionNumber: String(number) }
      const identity = { ...whole, kind: 'partition', size, facts } as const
      return [{ number, image, isSystem: system, disk: partitionNode(this.disk.path, number), identity }]
    })
  }
}
