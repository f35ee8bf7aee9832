import { crc32 } from 'node:zlib'

/** One partition: its GUID as udev writes it, first and last sector. */
export interface GptPartition {
  readonly uuid: string
  readonly first: number
  readonly last: number
}

/** The beginning of a disk with a protective MBR and a GPT of 128 entries; 34 sectors of 512 bytes, 6 of 4096. */
export function gptBytes(
  partitions: readonly GptPartition[],
  options: { sectors: number; sectorBytes?: number },
): Buffer {
  const { sectors, sectorBytes = 512 } = options
  const table = Buffer.alloc(128 * 128)
  for (const [i, { uuid, first, last }] of partitions.entries()) {
    const entry = table.subarray(i * 128)
    entry.set(guidBytes('0fc63daf-8483-4772-8e79-3d69d8477de4'), 0)
    entry.set(guidBytes(uuid), 16)
    entry.writeBigUInt64LE(BigInt(first), 32)
    entry.writeBigUInt64LE(BigInt(last), 40)
  }
  const header = Buffer.alloc(92)
  header.write('EFI PART')
  header.writeUInt32LE(0x10000, 8)
  header.writeUInt32LE(92, 12)
  for (const [at, sector] of [
    [24, 1],
    [32, sectors - 1],
    [40, 34],
    [48, sectors - 34],
    [72, 2],
  ] as const)
    header.writeBigUInt64LE(BigInt(sector), at)
  header.writeUInt32LE(128, 80)
  header.writeUInt32LE(128, 84)
  header.writeUInt32LE(crc32(table), 88)
  header.writeUInt32LE(crc32(header), 16)
  const disk = Buffer.alloc(2 * sectorBytes + table.length)
  disk.set([0, 0, 2, 0, 0xee, 255, 255, 255], 446)
  disk.writeUInt32LE(1, 454)
  disk.writeUInt32LE(sectors - 1, 458)
  disk.writeUInt16LE(0xaa55, 510)
  disk.set(header, sectorBytes)
  disk.set(table, 2 * sectorBytes)
  return disk
}

function guidBytes(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  return Buffer.from([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((i) => bytes[i]!))
}
