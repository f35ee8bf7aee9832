import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { compareDisks } from '../../disk/compare-disks.ts'
import { readDisk } from '../../disk/read-disk.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { type PublishedImage, publishedImages } from '../machine/published-images.ts'
import type { Offer } from './open-source.ts'

/**
 * What the master can offer besides the image `main`: every other image that it has published, if the disk or the copy is still
 * there. What is not there is told in a warning.
 */
export async function otherImages(
  machine: Machine,
  main: string | undefined,
  report: (event: AgentEvent) => void,
): Promise<Offer[]> {
  const offers: Offer[] = []
  for (const published of await publishedImages(machine.state)) {
    const { image, release } = published
    const manifest = machine.trust.view().release(image, release)
    if (image === main || manifest === undefined) continue
    try {
      offers.push({ manifest, path: await placeOf(published), whole: true })
    } catch (error) {
      if (!isMeshError(error)) throw error
      report({ type: 'warning', text: `image ${image} is not offered: ${error.message}` })
    }
  }
  return offers
}

/** Path of the content. Errors: DISK_OTHER if another disk has the path now, and those of the disk. */
async function placeOf({ image, disk, diskIdentity, servedFrom }: PublishedImage): Promise<string> {
  if (servedFrom !== undefined) return servedFrom
  const there = await readDisk(disk)
  if (diskIdentity !== undefined && !['same', 'untold'].includes(compareDisks(diskIdentity, there)))
    throw new MeshError('DISK_OTHER', `${disk} is another disk than that of which ${image} was published`)
  return disk
}
