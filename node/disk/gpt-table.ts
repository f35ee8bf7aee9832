import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'
import { type ReadBytes, readGpt } from './gpt.ts'
import { guidText } from './partition-table.ts'
import type { DiskPlan, PlannedPartition } from './plan-disk.ts'

const ENTRIES = 128
const ENTRY_BYTES = 128
const HEADER_BYTES = 92
const REVISION = 0x10000
/** The type of a partition of an MBR that says: here is a GPT. */
const PROTECTIVE = 0xee
const MOST_SECTORS = 0xffff_ffff

/** The parts of a table, as they stand on the disk. */
interface GptTable {
  /** Sector 0. Without it no system looks for a GPT: it decides at a disk that has none. */
  readonly protectiveMbr: Buffer
  /** The header in sector 1. It says where the entries are: it decides at a disk that has a table. */
  readonly header: Buffer
  /** The entries, and the byte at which they begin. */
  readonly entries: Buffer
  readonly entriesAt: number
  /** Entries and header that end with the disk, and the byte at which they begin. */
  readonly backup: Buffer
  readonly backupAt: number
}

/**
 * The GUID partition table of a plan (UEFI Specification 2.10, chapter 5). There are two places for the entries behind the header, `place` 0 and 1,
 * so that a table can change while the one before stays complete.
 */
export function gptTable({ guid, size, sectorBytes, partitions }: DiskPlan, place: 0 | 1 = 0): GptTable {
  const sectors = Math.floor(size / sectorBytes)
  const entrySectors = (ENTRIES * ENTRY_BYTES) / sectorBytes
  const entries = Buffer.alloc(ENTRIES * ENTRY_BYTES)
  for (const partition of partitions) writeEntry(entries, (partition.number - 1) * ENTRY_BYTES, partition, sectorBytes)
  const header = (own: number, other: number, entriesAt: number): Buffer => {
    const sector = Buffer.alloc(sectorBytes)
    sector.write('EFI PART', 'latin1')
    sector.writeUInt32LE(REVISION, 8)
    sector.writeUInt32LE(HEADER_BYTES, 12)
    // First and last sector that partitions may have.
    const usable = [2 + 2 * entrySectors, sectors - entrySectors - 2]
    for (const [place, value] of [
      [24, own],
      [32, other],
      [40, usable[0]!],
      [48, usable[1]!],
      [72, entriesAt],
    ] as const)
      sector.writeBigUInt64LE(BigInt(value), place)
    sector.set(guidBytes(guid), 56)
    sector.writeUInt32LE(ENTRIES, 80)
    sector.writeUInt32LE(ENTRY_BYTES, 84)
    sector.writeUInt32LE(crc32(entries), 88)
    sector.writeUInt32LE(crc32(sector.subarray(0, HEADER_BYTES)), 16)
    return sector
  }
  const backupSector = sectors - 1 - entrySectors
  const entrySector = 2 + place * entrySectors
  return {
    protectiveMbr: protectiveMbr(sectors, sectorBytes),
    header: header(1, sectors - 1, entrySector),
    entries,
    entriesAt: entrySector * sectorBytes,
    backup: Buffer.concat([entries, header(sectors - 1, 1, backupSector)]),
    backupAt: backupSector * sectorBytes,
  }
}

function writeEntry(
  entries: Buffer,
  at: number,
  { type, uuid, offset, size, label, attributes = '0' }: PlannedPartition,
  sectorBytes: number,
): void {
  assert(offset % sectorBytes === 0 && size % sectorBytes === 0, `${label} ends within a sector`)
  entries.set(guidBytes(type), at)
  entries.set(guidBytes(uuid), at + 16)
  entries.writeBigUInt64LE(BigInt(offset / sectorBytes), at + 32)
  entries.writeBigUInt64LE(BigInt((offset + size) / sectorBytes - 1), at + 40)
  entries.writeBigUInt64LE(BigInt(`0x${attributes}`), at + 48)
  entries.write(label, at + 56, 'utf16le')
}

function protectiveMbr(sectors: number, sectorBytes: number): Buffer {
  const mbr = Buffer.alloc(sectorBytes)
  // Begins at the second sector, as cylinders and heads, too; its end is beyond what they can say.
  mbr.set([0, 0x00, 0x02, 0x00, PROTECTIVE, 0xff, 0xff, 0xff], 446)
  mbr.writeUInt32LE(1, 454)
  mbr.writeUInt32LE(Math.min(sectors - 1, MOST_SECTORS), 458)
  mbr.writeUInt16LE(0xaa55, 510)
  return mbr
}

/**
 * What a table says, if it is one that {@link gptTable} could have made, on sectors of this size; and the place of its entries. Undefined for any
 * other. `images`: what partitions are for, by number. Errors: those of `read`.
 */
export async function readPlan(
  read: ReadBytes,
  { size, sectorBytes }: Pick<DiskPlan, 'size' | 'sectorBytes'>,
  images: ReadonlyMap<number, Pick<PlannedPartition, 'image' | 'system'>>,
): Promise<{ readonly plan: DiskPlan; readonly place: 0 | 1 } | undefined> {
  const header = await readGpt(read)
  const { sector, count, bytes, crc } = header?.entries ?? { sector: 0, count: 0, bytes: 0, crc: 0 }
  if (header?.sectorSize !== sectorBytes || count !== ENTRIES || bytes !== ENTRY_BYTES) return undefined
  const place = (sector - 2) / ((ENTRIES * ENTRY_BYTES) / sectorBytes)
  const entries = await read(sector * sectorBytes, ENTRIES * ENTRY_BYTES)
  if ((place !== 0 && place !== 1) || crc32(entries) !== crc) return undefined
  const partitions: PlannedPartition[] = []
  for (let number = 1; number <= ENTRIES; number++) {
    const entry = entries.subarray((number - 1) * ENTRY_BYTES, number * ENTRY_BYTES)
    if (entry.subarray(0, 16).every((byte) => byte === 0)) continue
    partitions.push({ ...readEntry(entry, sectorBytes), ...images.get(number), number })
  }
  const guid = guidText(Buffer.from(header.guid, 'hex'))
  return { plan: { guid, size, sectorBytes, partitions }, place }
}

function readEntry(entry: Buffer, sectorBytes: number): Omit<PlannedPartition, 'number'> {
  const sector = (at: number): number => Number(entry.readBigUInt64LE(at))
  const attributes = entry.readBigUInt64LE(48)
  return {
    type: guidText(entry.subarray(0, 16)),
    uuid: guidText(entry.subarray(16, 32)),
    offset: sector(32) * sectorBytes,
    size: (sector(40) - sector(32) + 1) * sectorBytes,
    label: entry.toString('utf16le', 56).replace(/\0.*$/s, ''),
    ...(attributes === 0n ? {} : { attributes: attributes.toString(16) }),
  }
}

/** The first three groups of a GUID stand there with their lowest byte first. */
function guidBytes(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  return Buffer.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((at) => bytes[at]!))
}
