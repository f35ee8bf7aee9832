import { readdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { compareDisks, sameName } from './compare-disks.ts'
import type { KnownDisk } from './known-disk.ts'
import { DISK_PLACES, type DiskPlaces, deviceNode, readBlockDevice } from './read-disk.ts'
import { unlessLimit } from './system-limit.ts'

/** A disk of this computer, and the kernel's path to it. */
export interface FoundDisk {
  readonly path: string
  readonly disk: KnownDisk
}

/**
 * The block devices of this computer that are the disk that is known: by the hardware, or, where that says nothing, by the UUID of the
 * partition or volume. Sorted by their paths; more than one if nothing tells them apart.
 */
export async function findDisk(known: KnownDisk, places: DiskPlaces = DISK_PLACES): Promise<FoundDisk[]> {
  const found: FoundDisk[] = []
  for (const number of await readdir(join(places.sys, 'dev/block')).catch(unlessLimit([]))) {
    // Devices come and go while this looks.
    const disk = await readBlockDevice(number, places).catch(unlessLimit(undefined))
    if (disk === undefined || disk.size === 0 || !isIt(known, disk)) continue
    const folder = await realpath(join(places.sys, 'dev/block', number)).catch(() => undefined)
    if (folder !== undefined) found.push({ path: await deviceNode(folder, places), disk })
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1))
}

function isIt(known: KnownDisk, disk: KnownDisk): boolean {
  const likeness = compareDisks(known, disk)
  return likeness === 'same' || (likeness === 'untold' && sameName(known.facts, disk.facts) === true)
}
