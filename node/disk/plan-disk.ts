import { randomUUID } from 'node:crypto'
import {
  BIOS_LABEL,
  BIOS_PARTITION_NUMBER,
  BIOS_PARTITION_OFFSET,
  BIOS_SECTOR_BYTES,
  BIOS_TYPE,
  type DiskLayout,
  ESP_LABEL,
  ESP_TYPE,
  LAYOUT_UNIT_BYTES,
  type LayoutPartition,
  PARTITION_TYPES,
  STATE_LABEL,
} from '../../protocol/disk-layout.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { Partition } from './gpt.ts'

/** A partition that a disk is to have. */
export interface PlannedPartition extends Partition {
  /** From 1, as the kernel counts. */
  readonly number: number
  readonly label: string
  /** GUIDs in small letters. */
  readonly type: string
  readonly uuid: string
  /** The image that it is for; absent: ESP, state, the loader for BIOS, or a partition that is only made. */
  readonly image?: string
  /** See {@link LayoutPartition}. */
  readonly system?: boolean
  /** The bits of its entry that have meanings of their own, hexadecimal, if there are any. */
  readonly attributes?: string
}

/** What a disk is to become. */
export interface DiskPlan {
  /** GUID of the disk. */
  readonly guid: string
  /** Bytes of the disk, and of its logical sectors. */
  readonly size: number
  readonly sectorBytes: number
  readonly partitions: readonly PlannedPartition[]
}

/** Places the partitions of a layout on a disk, with new GUIDs. Errors: DISK_TOO_SMALL. */
export function planDisk(
  layout: DiskLayout,
  { path, size, sectorBytes }: { readonly path: string; readonly size: number; readonly sectorBytes: number },
): DiskPlan {
  const wanted: readonly LayoutPartition[] = [
    { label: ESP_LABEL, type: ESP_TYPE, size: layout.esp, grow: false },
    { label: STATE_LABEL, type: PARTITION_TYPES.linux, size: layout.state, grow: false },
    ...layout.partitions,
  ]
  // The first unit holds the table. What is left at the end, at least one unit, holds its backup.
  const room = (Math.floor(size / LAYOUT_UNIT_BYTES) - 2) * LAYOUT_UNIT_BYTES
  const least = wanted.reduce((sum, one) => sum + one.size, 0)
  if (room < least)
    throw new MeshError(
      'DISK_TOO_SMALL',
      `${path} has ${size} bytes, the layout of the site needs ${least + 2 * LAYOUT_UNIT_BYTES}`,
      { detail: { path, size, needed: least + 2 * LAYOUT_UNIT_BYTES } },
    )
  let offset = LAYOUT_UNIT_BYTES
  const partitions = wanted.map((one, at): PlannedPartition => {
    const { grow, ...rest } = one
    const bytes = one.size + (grow ? room - least : 0)
    const place = { offset, size: bytes }
    offset += bytes
    return { uuid: randomUUID(), ...rest, number: at + 1, ...place }
  })
  if (sectorBytes === BIOS_SECTOR_BYTES) partitions.push(biosPartition())
  return { guid: layout.uuid ?? randomUUID(), size, sectorBytes, partitions }
}

/** In the first unit, behind the table. */
function biosPartition(): PlannedPartition {
  const place = { offset: BIOS_PARTITION_OFFSET, size: LAYOUT_UNIT_BYTES - BIOS_PARTITION_OFFSET }
  return { number: BIOS_PARTITION_NUMBER, label: BIOS_LABEL, type: BIOS_TYPE, uuid: randomUUID(), ...place }
}
