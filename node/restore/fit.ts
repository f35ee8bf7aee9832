import { MeshError } from '../../protocol/errors.ts'
import type { Manifest } from '../../protocol/manifest.ts'
import type { BlockDevice } from '../disk/block-device.ts'

/**
 * Refuses a disk on which nothing could use the image: one that is too small, or has other sectors than those that the image's
 * partition table counts in. What the sectors of a file are, its user decides. Errors: DISK_TOO_SMALL, DISK_SECTORS.
 */
export function assertFits(
  device: Pick<BlockDevice, 'path' | 'size' | 'sectorSize'>,
  manifest: Pick<Manifest, 'image' | 'size' | 'sectorSize'>,
): void {
  assertLargeEnough(device, manifest)
  const [actual, wanted] = [device.sectorSize, manifest.sectorSize]
  if (actual === undefined || wanted === undefined || actual === wanted) return
  throw new MeshError(
    'DISK_SECTORS',
    `${device.path} has sectors of ${actual} bytes, and the partition table of image ${manifest.image} counts in sectors of ${wanted} bytes: no system would find its partitions there`,
    { detail: { path: device.path, sectorSize: actual, needed: wanted } },
  )
}

/** Refuses a disk that cannot hold the image. Errors: DISK_TOO_SMALL. */
export function assertLargeEnough(
  device: Pick<BlockDevice, 'path' | 'size'>,
  { image, size }: Pick<Manifest, 'image' | 'size'>,
): void {
  if (device.size >= size) return
  throw new MeshError('DISK_TOO_SMALL', `${device.path} has ${device.size} bytes, image ${image} needs ${size}`, {
    detail: { path: device.path, size: device.size, needed: size },
  })
}
