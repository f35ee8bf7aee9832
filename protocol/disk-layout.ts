import { MAX_LAYOUT_PARTITIONS, MAX_TEXT_BYTES } from './constants.ts'
import { checkDocument } from './document.ts'
import { MeshError } from './errors.ts'
import { list, natural, object, optional, text, truth, which } from './json-shape.ts'
import { isImageName } from './manifest.ts'

/** How the disks of a site’s bare machines are laid out; a signed document (docs/PROTOCOL.md, “The layout of disks”). All sizes are bytes. */
export interface DiskLayout {
  /** Size of the EFI system partition. */
  readonly esp: number
  /** Size of the partition of the state directory. */
  readonly state: number
  /** Image whose content is the agent as an EFI program; absent: machines go on being started over the network. */
  readonly agent?: string
  /** GUID that the disk has on every machine. Absent: each machine makes one. */
  readonly uuid?: string
  /** In their order on the disk, behind ESP and state. The first one has an image, which the machine starts from. */
  readonly partitions: readonly LayoutPartition[]
}

/** A partition behind ESP and state. */
export interface LayoutPartition {
  /** What it is restored to. Absent: it is made empty, and nothing of the mesh writes to it afterwards. */
  readonly image?: string
  /** People choose between this system and the first one; it is restored when it is chosen. Others are restored at every boot. */
  readonly system?: boolean
  /** Its name in the partition table, at most 36 characters. */
  readonly label: string
  /** GUID of its type, in small letters. */
  readonly type: string
  /** Its size, or the least one if it grows. */
  readonly size: number
  /** It takes what the others leave of the disk. */
  readonly grow: boolean
  /** GUID that it has on every machine. Absent: each machine makes one. */
  readonly uuid?: string
}

/** All partitions begin at multiples of this, and have multiples of it as sizes. */
export const LAYOUT_UNIT_BYTES = 1024 ** 2
/** Names of the partitions that every layout has. */
export const ESP_LABEL = 'lab-esp'
export const STATE_LABEL = 'lab-state'
export const BIOS_LABEL = 'lab-bios'
/** Types of partitions: UEFI Specification 2.10 and https://uapi-group.org/specifications/specs/discoverable_partitions_specification. */
export const ESP_TYPE = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b'
/** Of the partition that holds a loader for BIOS (GNU GRUB Manual, “BIOS installation”). */
export const BIOS_TYPE = '21686148-6449-6e6f-744e-656564454649'
/** Its number is the last of a table, so that those of the others do not depend on it. */
export const BIOS_PARTITION_NUMBER = 128
/** Where it begins: behind a header and two places for entries, 66 sectors. It ends with the first {@link LAYOUT_UNIT_BYTES}. */
export const BIOS_PARTITION_OFFSET = 64 * 1024
/** Size of the sectors that a BIOS can start from. */
export const BIOS_SECTOR_BYTES = 512
/** What the first sector has for a program of BIOS, before the partition table of the MBR. */
export const BIOS_CODE_BYTES = 440
/** Types that have a name; those of Microsoft are on https://learn.microsoft.com/windows-hardware/manufacture/desktop/configure-uefigpt-based-hard-drive-partitions. */
export const PARTITION_TYPES = {
  root: '4f68bce3-e8cd-4db1-96e7-fbcaf984b709',
  linux: '0fc63daf-8483-4772-8e79-3d69d8477de4',
  windows: 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7',
  esp: ESP_TYPE,
  msr: 'e3c9e316-0b5c-4db8-817d-f92df00215ae',
  recovery: 'de94bba4-06d1-4d40-a16a-bfd50179d6ac',
  usr: '8484680c-9521-48c6-9c11-b0720656f69e',
  home: '933ac7e1-2eb4-4f13-b844-0e14e2aef915',
  srv: '3b8f8425-20e0-4f3b-907f-1a25a76f98e8',
  var: '4d21b016-b534-45c2-a9fb-5c16e091fd2d',
  tmp: '7ec6f557-3bc5-4aca-b293-16ef5df639d1',
  swap: '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f',
} as const

/** A FAT file system for two agents of 45 MiB and what else stands beside them. */
const MIN_ESP_BYTES = 128 * 1024 ** 2
/** A file system with a journal, and a write log. */
const MIN_STATE_BYTES = 32 * 1024 ** 2
/** What the smallest layout takes: the table and its backup, ESP, state, and a partition. */
export const MIN_LAYOUT_BYTES = MIN_ESP_BYTES + MIN_STATE_BYTES + 3 * LAYOUT_UNIT_BYTES
const MAX_LABEL_UNITS = 36

/** Whether a text is a GUID in small letters. */
export function isGuid(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text) && /[1-9a-f]/.test(text)
}

const imageName = which(text(MAX_TEXT_BYTES), isImageName)
const guid = which(text(MAX_TEXT_BYTES), isGuid)
const size = which(natural(), (bytes) => bytes > 0 && bytes % LAYOUT_UNIT_BYTES === 0)

/** Of layouts with a partition that belongs to no image, which earlier versions cannot read. */
const FORMAT = 2

const LAYOUT = {
  name: 'the layout of disks',
  format: FORMAT,
  shape: object({
    esp: which(size, (bytes) => bytes >= MIN_ESP_BYTES),
    state: which(size, (bytes) => bytes >= MIN_STATE_BYTES),
    agent: optional(imageName),
    uuid: optional(guid),
    partitions: list(
      object({
        image: optional(imageName),
        system: optional(truth),
        label: which(text(MAX_TEXT_BYTES), (label) => label.length > 0 && label.length <= MAX_LABEL_UNITS),
        type: guid,
        size,
        grow: truth,
        uuid: optional(guid),
      }),
      MAX_LAYOUT_PARTITIONS,
    ),
  }),
  fault: 'LAYOUT_INVALID',
} as const

/** What a layout says, from its JSON as it was parsed. Errors: LAYOUT_INVALID saying what is wrong, FORMAT_NEWER. */
export function decodeLayout(value: unknown): DiskLayout {
  const { esp, state, agent, uuid, partitions } = checkDocument(LAYOUT, value)
  const wrong = (why: string): MeshError => new MeshError('LAYOUT_INVALID', `the layout of disks: ${why}`)
  if (partitions[0]?.image === undefined) throw wrong('its first partition is for no image; machines start from that')
  const empty = partitions.find((one) => one.image === undefined && one.system === true)
  if (empty !== undefined) throw wrong(`${empty.label} is for no image, so it can be no system`)
  if (partitions.filter(({ grow }) => grow).length > 1) throw wrong('only one partition can grow')
  const unique = (what: string, names: readonly string[]): void => {
    const twice = names.find((name, at) => names.indexOf(name) !== at)
    if (twice !== undefined) throw wrong(`two partitions have the ${what} ${twice}`)
  }
  unique('image', [...(agent === undefined ? [] : [agent]), ...partitions.flatMap(({ image }) => image ?? [])])
  unique('label', [ESP_LABEL, STATE_LABEL, BIOS_LABEL, ...partitions.map(({ label }) => label)])
  unique(
    'GUID',
    partitions.flatMap(({ uuid }) => uuid ?? []),
  )
  const optionals = { ...(agent === undefined ? {} : { agent }), ...(uuid === undefined ? {} : { uuid }) }
  return { esp, state, ...optionals, partitions }
}

/** The document of a layout, as it is signed. Errors: LAYOUT_INVALID. */
export function encodeLayout(layout: DiskLayout): Record<string, unknown> {
  const { partitions, ...rest } = decodeLayout({ ...layout })
  const format = partitions.some(({ image }) => image === undefined) ? FORMAT : 1
  return { ...rest, format, partitions: [...partitions] }
}
