import { parseGptHeader, type ReadBytes } from './gpt.ts'
import { MAX_PARTITION_ENTRY_BYTES, MAX_PARTITIONS } from './limits.ts'

/**
 * What the partition table of a disk calls its partition `number` (from 1), in the form in which udev writes
 * ID_PART_ENTRY_UUID: the GUID of a GPT entry, or `SIGNATURE-NN` of an MBR. Undefined if the table has no such name, or is damaged.
 * `sectorBytes`: the disk's own logical sector size. Source: UEFI Specification 2.10, chapter 5. Errors: those of `read`.
 */
export async function partitionUuid(read: ReadBytes, number: number, sectorBytes: number): Promise<string | undefined> {
  const mbr = await read(0, 512)
  if (mbr.readUInt16LE(510) !== 0xaa55) return undefined
  const header = await read(sectorBytes, 512)
  if (header.toString('latin1', 0, 8) === 'EFI PART') return gptUuid(read, header, number, sectorBytes)
  const signature = mbr.readUInt32LE(440)
  if (signature === 0) return undefined
  return `${signature.toString(16).padStart(8, '0')}-${number.toString(16).padStart(2, '0')}`
}

async function gptUuid(
  read: ReadBytes,
  header: Buffer,
  number: number,
  sectorBytes: number,
): Promise<string | undefined> {
  const parsed = parseGptHeader(header, sectorBytes)
  if (parsed === undefined) return undefined
  const { sector, count, bytes: entryBytes } = parsed.entries
  const first = sector * sectorBytes
  if (count > MAX_PARTITIONS || entryBytes < 128 || entryBytes > MAX_PARTITION_ENTRY_BYTES) return undefined
  if (number < 1 || number > count || !Number.isSafeInteger(first)) return undefined
  const entry = await read(first + (number - 1) * entryBytes, 128)
  const guid = guidText(entry.subarray(16, 32))
  return /[^0-]/.test(guid) ? guid : undefined
}

/** A GUID as it stands in a table, whose first three fields are little-endian; in small letters. */
export function guidText(bytes: Buffer): string {
  const swapped = Buffer.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((i) => bytes[i]!))
  return swapped.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
