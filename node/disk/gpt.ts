import { crc32 } from 'node:zlib'
import { GPT_SECTOR_BYTES, MAX_PARTITION_ENTRY_BYTES, MAX_PARTITIONS } from './limits.ts'

/** Reads `length` bytes of a disk from byte `offset`; what lies behind its end reads as zeros. */
export type ReadBytes = (offset: number, length: number) => Promise<Buffer>

/** A header of a GUID partition table whose checksum is right (UEFI Specification 2.10, section 5.3.2). */
interface GptHeader {
  /** Bytes of a sector: the size that the table was made for. All numbers of sectors are in this unit. */
  readonly sectorSize: number
  /** Sector of this header. */
  readonly ownSector: number
  /** GUID of the disk, hexadecimal, as it stands there. */
  readonly guid: string
  /** Sector of the first partition entry; how many entries there are, the bytes of each, and the CRC-32 of them all. */
  readonly entries: { readonly sector: number; readonly count: number; readonly bytes: number; readonly crc: number }
}

/** A partition: its first byte, and its bytes. */
export interface Partition {
  readonly offset: number
  readonly size: number
}

/**
 * The first header of a disk's table, whatever sectors the table was made for; undefined if the disk has none that is valid.
 * Errors: those of `read`.
 */
export async function readGpt(read: ReadBytes): Promise<GptHeader | undefined> {
  for (const sectorSize of GPT_SECTOR_BYTES) {
    const header = parseGptHeader(await read(sectorSize, sectorSize), sectorSize)
    if (header?.ownSector === 1) return header
  }
  return undefined
}

/** A header from the sector that holds it; undefined if that holds none, or a damaged one. */
export function parseGptHeader(sector: Buffer, sectorSize: number): GptHeader | undefined {
  if (sector.toString('latin1', 0, 8) !== 'EFI PART') return undefined
  const length = sector.readUInt32LE(12)
  if (length < 92 || length > sector.byteLength) return undefined
  const checked = Buffer.from(sector.subarray(0, length))
  checked.fill(0, 16, 20)
  if (crc32(checked) !== sector.readUInt32LE(16)) return undefined
  const sectorAt = (at: number): number => Number(sector.readBigUInt64LE(at))
  return {
    sectorSize,
    ownSector: sectorAt(24),
    guid: sector.toString('hex', 56, 72),
    entries: {
      sector: sectorAt(72),
      count: sector.readUInt32LE(80),
      bytes: sector.readUInt32LE(84),
      crc: sector.readUInt32LE(88),
    },
  }
}

/** The partitions that a table names, in its order. Errors: those of `read`. */
export async function gptPartitions(read: ReadBytes, { sectorSize, entries }: GptHeader): Promise<Partition[]> {
  const { sector, count, bytes } = entries
  if (count > MAX_PARTITIONS || bytes < 128 || bytes > MAX_PARTITION_ENTRY_BYTES) return []
  const table = await read(sector * sectorSize, count * bytes)
  const found: Partition[] = []
  for (let at = 0; at < table.byteLength; at += bytes) {
    // An entry whose type is zeros is free.
    if (table.subarray(at, at + 16).every((byte) => byte === 0)) continue
    const [first, last] = [Number(table.readBigUInt64LE(at + 32)), Number(table.readBigUInt64LE(at + 40))]
    if (last >= first) found.push({ offset: first * sectorSize, size: (last - first + 1) * sectorSize })
  }
  return found
}
