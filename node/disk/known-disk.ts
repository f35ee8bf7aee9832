/** What stands between a path and the disk: see {@link KnownDisk.kind}. */
export type DiskKind = 'file' | 'disk' | 'partition' | 'loop' | 'mapped' | 'raid'

/**
 * Names of the facts by which a disk is known. None of them is changed by what a restore writes to the disk: of a partition the
 * partition table stands outside of it, of a whole disk the partition table counts for nothing.
 */
export const FACT_NAMES = [
  /** The drive's world wide name as the kernel knows it: `naa.5000c500a1b2c3d4`, `eui.0025385b71b0a1c2`. */
  'wwid',
  /** The drive's serial number as the kernel knows it. */
  'serial',
  /** udev's ID_WWN_WITH_EXTENSION or ID_WWN, ID_SERIAL_SHORT and ID_SERIAL, which may differ from the kernel's words. */
  'udevWwn',
  'udevSerial',
  'udevName',
  /** Partition UUID: `0fc63daf-8483-4772-8e79-3d69d8477de4`, or `1a2b3c4d-03` of an MBR. */
  'partition',
  /** Number of the partition. */
  'partitionNumber',
  /** UUID of a device-mapper device: `LVM-…`, `CRYPT-LUKS2-…`. */
  'mapped',
  /** UUID of a RAID, whose drives may be replaced one by one. */
  'raid',
  /** Inode and time of birth of a disk image in a file, or of the file behind a loop device. */
  'file',
] as const

/** One of {@link FACT_NAMES}. */
export type FactName = (typeof FACT_NAMES)[number]
/** The facts that are known; texts as kernel and udev write them. */
export type DiskFactValues = { readonly [Name in FactName]?: string }

/** What a machine knows its disk by, besides its path; kept in `machine.json`. */
export interface KnownDisk {
  readonly kind: DiskKind
  /** Bytes. */
  readonly size: number
  /** Bytes of a logical sector; absent for a file. */
  readonly sectorBytes?: number
  /** What the drive calls itself, for people. */
  readonly model?: string
  /** A path that means this disk at every boot, such as `/dev/disk/by-id/…`. Only people need it. */
  readonly link?: string
  readonly facts: DiskFactValues
}

/** `/dev/sda3 (partition 0fc63daf-…, 256060514304 bytes, SAMSUNG MZ7LN256, serial number S1XYNYAG)`. */
export function describeDisk(path: string, { kind, size, model, facts }: KnownDisk): string {
  const serial = facts.serial ?? facts.udevSerial ?? facts.udevName ?? facts.wwid ?? facts.udevWwn
  const parts = [
    facts.partition === undefined ? (kind === 'disk' ? undefined : kind) : `partition ${facts.partition}`,
    `${size} bytes`,
    model,
    serial === undefined
      ? kind === 'file' || kind === 'loop'
        ? undefined
        : 'no serial number'
      : `serial number ${serial}`,
  ]
  return `${path} (${parts.filter((part) => part !== undefined).join(', ')})`
}
