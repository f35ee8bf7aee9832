import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import { readerOf } from '../disk/disk-content.ts'
import { parseGptHeader, readGpt } from '../disk/gpt.ts'

/**
 * Takes away what an earlier table has left at the end of a disk that is larger than its image: the backup of a GPT with other
 * partitions. Firmware and repair tools look there, and would bring those partitions back, should the first table ever be damaged.
 * Only the sector of that header is overwritten, with zeros; it lies behind the image. The table of the image keeps its own backup
 * where the image has it. Returns the byte of the header that was overwritten; undefined if there was none.
 * Errors: DISK_IO, DISK_READ_ONLY.
 */
export async function dropOldBackupTable(
  device: BlockDevice,
  image: { readonly size: number },
): Promise<number | undefined> {
  if (device.size <= image.size) return undefined
  const read = readerOf(device)
  const table = await readGpt(read)
  if (table === undefined) return undefined
  const { sectorSize } = table
  const last = Math.floor(device.size / sectorSize) - 1
  const offset = last * sectorSize
  if (offset < image.size) return undefined
  const backup = parseGptHeader(await read(offset, sectorSize), sectorSize)
  if (backup === undefined || backup.ownSector !== last) return undefined
  // Somebody has moved the backup of this very table to the end, as `sgdisk -e` does.
  if (backup.guid === table.guid && backup.entries.crc === table.entries.crc) return undefined
  await device.write(byteOffset(offset), Buffer.alloc(sectorSize))
  await device.flush()
  return offset
}
