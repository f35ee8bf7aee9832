import { readerOf } from '../../node/disk/disk-content.ts'
import { openDevice } from '../../node/disk/file-device.ts'
import { readGpt } from '../../node/disk/gpt.ts'
import { readPlan } from '../../node/disk/gpt-table.ts'
import type { DiskPlan, PlannedPartition } from '../../node/disk/plan-disk.ts'
import { ESP_LABEL, LAYOUT_UNIT_BYTES, PARTITION_TYPES, STATE_LABEL } from '../../protocol/disk-layout.ts'
import { MeshError } from '../../protocol/errors.ts'
import { isImageName } from '../../protocol/manifest.ts'

/** What a layout of a model’s disk would be. */
interface LayoutProposal {
  /** The text of a layout file (TOML). */
  readonly text: string
  /** Numbers of the partitions that are to be published, and the names that the layout has for their images. */
  readonly images: readonly { readonly number: number; readonly image: string }[]
}

/** Partitions that hold nothing that is worth an image. */
const EMPTY: readonly string[] = [PARTITION_TYPES.msr, PARTITION_TYPES.swap, PARTITION_TYPES.tmp]
const [ESP_SIZE, STATE_SIZE] = ['512M', '8G']

/**
 * The layout by which other disks get the partitions of this one: with their types, sizes and GUIDs, so that what names them goes on
 * finding them. Reads only. Errors: LAYOUT_INVALID if the disk has no GPT of the usual kind, and those of the disk.
 */
export async function proposeLayout(path: string): Promise<LayoutProposal> {
  const { guid, partitions } = await planOf(path)
  const own = partitions.filter(({ label }) => label !== ESP_LABEL && label !== STATE_LABEL)
  const first = own.find(({ type }) => type === PARTITION_TYPES.root) ?? own.find(({ type }) => !isHelper(type))
  if (first === undefined) throw new MeshError('LAYOUT_INVALID', `${path} has no partition that a system could be on`)
  const inOrder = [first, ...own.filter((one) => one !== first)]
  const names = namesOf(inOrder)
  const sizeOf = (label: string, usual: string): string => {
    const there = partitions.find((one) => one.label === label)
    return there === undefined ? usual : mib(there.size)
  }
  const tables = inOrder.map((one, at) => tableOf(one, names[at]!, at > 0 && isSystem(one, first)))
  const head = [
    `esp = "${sizeOf(ESP_LABEL, ESP_SIZE)}"`,
    `state = "${sizeOf(STATE_LABEL, STATE_SIZE)}"   # at least 0.1 % of the images, and what is staged`,
    `uuid = "${guid}"`,
    '# agent = "mesh-agent"',
  ]
  const images = inOrder.flatMap(({ number, type }, at) =>
    EMPTY.includes(type) ? [] : [{ number, image: names[at]! }],
  )
  return { text: [head.join('\n'), ...tables].map((part) => `${part}\n`).join('\n'), images }
}

async function planOf(path: string): Promise<DiskPlan> {
  const device = await openDevice(path, { writable: false })
  try {
    const read = readerOf(device)
    const sectorBytes = (await readGpt(read))?.sectorSize ?? 512
    const found = await readPlan(read, { size: device.size, sectorBytes }, new Map())
    if (found !== undefined) return found.plan
    throw new MeshError('LAYOUT_INVALID', `${path} has no GPT with 128 entries behind its header`)
  } finally {
    await device.close()
  }
}

const isHelper = (type: string): boolean =>
  EMPTY.includes(type) || type === PARTITION_TYPES.esp || type === PARTITION_TYPES.recovery

/** Beside a root of Linux the first partition of Windows is the other system. */
function isSystem({ type }: PlannedPartition, first: PlannedPartition): boolean {
  return type === PARTITION_TYPES.windows && first.type === PARTITION_TYPES.root
}

/** By the names in the table, as far as images can be called so; each one once. */
function namesOf(partitions: readonly PlannedPartition[]): string[] {
  const names: string[] = []
  for (const { label, number } of partitions) {
    const name = label
      .toLowerCase()
      .replaceAll(/[^a-z0-9]+/g, '-')
      .replaceAll(/^-|-$/g, '')
    const isGood = isImageName(name) && !names.includes(name)
    names.push(isGood ? name : `partition-${number}`)
  }
  return names
}

function tableOf({ label, type, size, uuid }: PlannedPartition, name: string, isChosen: boolean): string {
  const named = Object.entries(PARTITION_TYPES).find(([, guid]) => guid === type)?.[0]
  return [
    '[[partition]]',
    ...(EMPTY.includes(type) ? [] : [`image = "${name}"`]),
    `label = ${JSON.stringify(label === '' ? name : label)}`,
    ...(isChosen ? ['system = true'] : []),
    `type = "${named ?? type}"`,
    `size = "${mib(size)}"`,
    `uuid = "${uuid}"`,
  ].join('\n')
}

const mib = (bytes: number): string => `${Math.ceil(bytes / LAYOUT_UNIT_BYTES)}M`
