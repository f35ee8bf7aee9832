import { type DiskLayout, decodeLayout, type LayoutPartition } from '../../protocol/disk-layout.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { TrustView } from './trusted-view.ts'
import type { VerifiedManifest } from './verified-manifest.ts'

/** How the site lays out the disks of bare machines. Errors: LAYOUT_MISSING, LAYOUT_INVALID, FORMAT_NEWER. */
export function siteLayout({ layout }: Pick<TrustView, 'layout'>): DiskLayout {
  if (layout === undefined)
    throw new MeshError('LAYOUT_MISSING', 'the site does not say how the disks of bare machines are laid out')
  return decodeLayout(layout)
}

/**
 * Refuses a layout that names an image which is not published, or has a partition that is smaller than the newest release of its image.
 * Returns those releases. Errors: IMAGE_UNKNOWN, LAYOUT_INVALID.
 */
export function assertImagesFit(
  view: Pick<TrustView, 'newest' | 'images'>,
  { agent, partitions }: DiskLayout,
): ReadonlyMap<LayoutPartition, VerifiedManifest> {
  const newest = (image: string): VerifiedManifest => {
    const manifest = view.newest(image)
    if (manifest !== undefined) return manifest
    const published = view.images.join(', ') || 'none yet'
    throw new MeshError('IMAGE_UNKNOWN', `the layout names image ${image}, and the site publishes ${published}`)
  }
  if (agent !== undefined) newest(agent)
  return new Map(
    partitions.map((partition) => {
      const manifest = newest(partition.image)
      if (partition.size >= manifest.size) return [partition, manifest]
      const text = `the partition ${partition.label} has ${partition.size} bytes, image ${manifest.image} release ${manifest.release} needs ${manifest.size}`
      throw new MeshError('LAYOUT_INVALID', text)
    }),
  )
}
