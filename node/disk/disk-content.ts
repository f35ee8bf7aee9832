import { byteOffset } from '../../protocol/units.ts'
import { blkidType } from './blkid.ts'
import type { BlockDevice } from './block-device.ts'
import { fileSystemOf, MAGIC_BYTES } from './file-system-magic.ts'
import { gptPartitions, type Partition, type ReadBytes, readGpt } from './gpt.ts'
import { MAX_PARTITIONS } from './limits.ts'

/** What a disk holds, as far as its magic numbers tell. */
export interface DiskContent {
  readonly table?: {
    readonly kind: 'GPT' | 'MBR'
    readonly partitions: number
    /** Bytes of the sectors that the table counts in; undefined for an MBR of which nothing tells. */
    readonly sectorSize?: number
  }
  /** Names of the file systems (or swap, LVM, LUKS and others), in the order of the disk. */
  readonly fileSystems: readonly string[]
}

/**
 * Looks for a partition table, and for a file system on the disk or in each partition: by the magic numbers that
 * `file-system-magic` knows, then by `blkid` if it is installed, which knows more. Errors: DISK_IO, DISK_SHRUNK.
 */
export async function readDiskContent(device: BlockDevice): Promise<DiskContent> {
  const read = readerOf(device)
  const whole = { offset: 0, size: device.size }
  const gpt = await readGpt(read)
  if (gpt !== undefined) {
    const partitions = await gptPartitions(read, gpt)
    const fileSystems = await fileSystemsIn(device, partitions)
    return { table: { kind: 'GPT', partitions: partitions.length, sectorSize: gpt.sectorSize }, fileSystems }
  }
  const head = await read(0, MAGIC_BYTES)
  const own = fileSystemOf(head)
  if (own !== undefined) return { fileSystems: [own] }
  const mbr = mbrPartitions(head)
  if (mbr !== undefined) return mbrContent(device, mbr)
  const other = await blkidType(device.path, whole)
  return { fileSystems: other === undefined ? [] : [other] }
}

/** For people: `GPT with 3 partitions: vfat, ext4, swap`. */
export function describeContent({ table, fileSystems }: DiskContent): string {
  const names = fileSystems.join(', ')
  if (table === undefined) return names === '' ? 'no file system or partition table that is known' : names
  const count = table.partitions === 1 ? '1 partition' : `${table.partitions} partitions`
  return `${table.kind} with ${count}${table.partitions === 0 ? '' : `: ${names === '' ? 'no known file system' : names}`}`
}

/** Reads of a device that go on as zeros behind its end. */
export function readerOf(device: BlockDevice): ReadBytes {
  return async (offset, length) => {
    const buffer = Buffer.alloc(length)
    const inside = Math.min(length, device.size - offset)
    if (inside > 0) await device.read(byteOffset(offset), buffer.subarray(0, inside))
    return buffer
  }
}

async function fileSystemsIn(device: BlockDevice, partitions: readonly Partition[]): Promise<string[]> {
  const read = readerOf(device)
  const found: string[] = []
  for (const partition of partitions.slice(0, MAX_PARTITIONS)) {
    const head = await read(partition.offset, Math.min(MAGIC_BYTES, partition.size))
    const name = fileSystemOf(head) ?? (await blkidType(device.path, partition))
    if (name !== undefined) found.push(name)
  }
  return found
}

/** First sector and sectors of each primary partition. */
interface MbrEntry {
  readonly first: number
  readonly sectors: number
}

/** The primary partitions of a master boot record; undefined if it is none. */
function mbrPartitions(head: Buffer): MbrEntry[] | undefined {
  if (head.readUInt16LE(510) !== 0xaa55) return undefined
  const entries = [446, 462, 478, 494].map((at) => head.subarray(at, at + 16))
  // A boot sector that is no MBR has code there.
  if (entries.some((entry) => (entry[0]! & 0x7f) !== 0)) return undefined
  const used = entries.filter((entry) => entry[4] !== 0)
  const found = used.map((entry) => ({ first: entry.readUInt32LE(8), sectors: entry.readUInt32LE(12) }))
  return found.length === 0 || found.some(({ sectors }) => sectors === 0) ? undefined : found
}

/** An MBR does not say what its sectors are: a device does, and of an image file the file systems that are found. */
async function mbrContent(device: BlockDevice, entries: readonly MbrEntry[]): Promise<DiskContent> {
  const partitions = entries.length
  let fileSystems: string[] = []
  for (const sectorSize of device.sectorSize === undefined ? [512, 4096] : [device.sectorSize]) {
    const places = entries.map(({ first, sectors }) => ({ offset: first * sectorSize, size: sectors * sectorSize }))
    fileSystems = await fileSystemsIn(
      device,
      places.filter(({ offset }) => offset < device.size),
    )
    if (fileSystems.length > 0 || device.sectorSize !== undefined)
      return { table: { kind: 'MBR', partitions, sectorSize }, fileSystems }
  }
  return { table: { kind: 'MBR', partitions }, fileSystems }
}
