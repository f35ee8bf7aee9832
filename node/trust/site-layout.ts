import { type DiskLayout, decodeLayout, type LayoutPartition } from '../../protocol/disk-layout.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { TrustView } from './trusted-view.ts'
import type { VerifiedManifest } from './verified-manifest.ts'

const AGENT_COPIES = 4
const ESP_SLACK_BYTES = 4 * 1024 ** 2

/** How the site lays out the disks of bare machines. Errors: LAYOUT_MISSING, LAYOUT_INVALID, FORMAT_NEWER. */
export function siteLayout({ layout }: Pick<TrustView, 'layout'>): DiskLayout {
  if (layout === undefined)
    throw new MeshError('LAYOUT_MISSING', 'the site does not say how the disks of bare machines are laid out')
  return decodeLayout(layout)
}

/**
 * Refuses a layout that names an image which is not published, or has a partition that is smaller than what it is to hold.
 * Returns those releases. Errors: IMAGE_UNKNOWN, LAYOUT_INVALID.
 */
export function assertImagesFit(
  view: Pick<TrustView, 'newest' | 'images'>,
  { esp, agent, partitions }: DiskLayout,
): ReadonlyMap<LayoutPartition, VerifiedManifest> {
  const newest = (image: string): VerifiedManifest => {
    const manifest = view.newest(image)
    if (manifest !== undefined) return manifest
    const published = view.images.join(', ') || 'none yet'
    throw new MeshError('IMAGE_UNKNOWN', `the layout names image ${image}, and the site publishes ${published}`)
  }
  if (agent !== undefined) assertAgentFits(esp, newest(agent))
  return new Map(
    partitions.flatMap((partition) => {
      if (partition.image === undefined) return []
      const manifest = newest(partition.image)
      if (partition.size >= manifest.size) return [[partition, manifest] as const]
      const text = `the partition ${partition.label} has ${partition.size} bytes, image ${manifest.image} release ${manifest.release} needs ${manifest.size}`
      throw new MeshError('LAYOUT_INVALID', text)
    }),
  )
}

/** Two slots, a copy where firmware looks by itself, and a new file meanwhile; the file system needs a part, too. */
function assertAgentFits(esp: number, { image, size }: VerifiedManifest): void {
  const needed = AGENT_COPIES * size + ESP_SLACK_BYTES
  if (esp >= needed) return
  throw new MeshError(
    'LAYOUT_INVALID',
    `the EFI system partition has ${esp} bytes; for ${AGENT_COPIES} times the agent, image ${image}, it needs ${needed}`,
  )
}
