/** Bytes from the beginning of a partition within which {@link fileSystemOf} looks: btrfs keeps its magic number behind 64 KiB. */
export const MAGIC_BYTES = 68 * 1024

interface Magic {
  readonly name: string
  readonly at: number
  /** As latin1. */
  readonly bytes: string
}

/** What is told by one magic number (the superblocks of each, as libblkid knows them). */
const MAGICS: readonly Magic[] = [
  { name: 'xfs', at: 0, bytes: 'XFSB' },
  { name: 'btrfs', at: 0x10040, bytes: '_BHRfS_M' },
  { name: 'ntfs', at: 3, bytes: 'NTFS    ' },
  { name: 'exfat', at: 3, bytes: 'EXFAT   ' },
  { name: 'BitLocker', at: 3, bytes: '-FVE-FS-' },
  { name: 'LUKS', at: 0, bytes: 'LUKS\xba\xbe' },
  // The page of the machine that made it: 4 KiB, 16 KiB or 64 KiB.
  ...[4096, 16384, 65536].flatMap((page) => [
    { name: 'swap', at: page - 10, bytes: 'SWAPSPACE2' },
    { name: 'swap', at: page - 10, bytes: 'SWAP-SPACE' },
  ]),
  // The label of a physical volume is in one of the first four sectors.
  ...[0, 512, 1024, 1536].map((at) => ({ name: 'LVM', at, bytes: 'LABELONE' })),
  { name: 'f2fs', at: 0x400, bytes: '\x10\x20\xf5\xf2' },
  { name: 'squashfs', at: 0, bytes: 'hsqs' },
  { name: 'iso9660', at: 0x8001, bytes: 'CD001' },
  { name: 'RAID', at: 0x1000, bytes: '\xfc\x4e\x2b\xa9' },
]

/** Bits of the superblock of ext2 and its successors that only ext4 has (https://docs.kernel.org/filesystems/ext4/super.html). */
const EXT4_INCOMPATIBLE = 0x40 | 0x80 | 0x100 | 0x200
const EXT4_READ_ONLY = 0x08 | 0x10 | 0x20 | 0x40 | 0x400
const EXT_JOURNAL = 0x04

/** Name of the file system, or of what else a partition holds, whose first MAGIC_BYTES are these; undefined if it is not known. */
export function fileSystemOf(head: Buffer): string | undefined {
  const found = MAGICS.find(({ at, bytes }) => head.toString('latin1', at, at + bytes.length) === bytes)
  return found?.name ?? extOf(head) ?? (isFat(head) ? 'vfat' : undefined)
}

/**
 * Bytes of the smallest piece in which a file system is read and written, as its first MAGIC_BYTES say: a disk with larger sectors cannot have it.
 * Undefined of those that fit every disk, or that are not known.
 */
export function smallestPiece(head: Buffer): number | undefined {
  const name = fileSystemOf(head)
  if (name?.startsWith('ext') === true) return 1024 << head.readUInt32LE(1024 + 24)
  if (name === 'xfs') return head.readUInt16BE(102)
  return name === 'vfat' || name === 'ntfs' ? head.readUInt16LE(11) : undefined
}

function extOf(head: Buffer): string | undefined {
  const at = 1024
  if (head.byteLength < at + 1024 || head.readUInt16LE(at + 0x38) !== 0xef53) return undefined
  const [compatible, incompatible, readOnly] = [0x5c, 0x60, 0x64].map((field) => head.readUInt32LE(at + field))
  if ((incompatible! & EXT4_INCOMPATIBLE) !== 0 || (readOnly! & EXT4_READ_ONLY) !== 0) return 'ext4'
  return (compatible! & EXT_JOURNAL) !== 0 ? 'ext3' : 'ext2'
}

/** A boot sector of FAT has no magic number, but a name, and a plausible number of bytes and sectors of a cluster. */
function isFat(head: Buffer): boolean {
  if (head.byteLength < 512 || head.readUInt16LE(510) !== 0xaa55) return false
  const [sector, cluster] = [head.readUInt16LE(11), head.readUInt8(13)]
  const named = ['FAT12   ', 'FAT16   ', 'FAT     '].includes(head.toString('latin1', 0x36, 0x3e))
  return (
    [512, 1024, 2048, 4096].includes(sector) &&
    Number.isInteger(Math.log2(cluster)) &&
    (named || head.toString('latin1', 0x52, 0x5a) === 'FAT32   ')
  )
}
