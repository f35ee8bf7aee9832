import {
  BIOS_LABEL,
  type DiskLayout,
  ESP_LABEL,
  ESP_TYPE,
  LAYOUT_UNIT_BYTES,
  type LayoutPartition,
  PARTITION_TYPES,
  STATE_LABEL,
} from '../../protocol/disk-layout.ts'
import type { DiskPlan, PlannedPartition } from './plan-disk.ts'

/** A partition that is on the disk and in the layout, or in the layout alone. */
interface Pair {
  readonly wanted: LayoutPartition
  readonly there: PlannedPartition | undefined
}

/** What a disk that is laid out becomes by a new layout. */
export interface LayoutChange {
  readonly plan: DiskPlan
  /** Numbers of partitions that are new. */
  readonly added: readonly number[]
  /** What changes, for people; empty if nothing does. */
  readonly told: readonly string[]
}

/** Why a disk cannot follow a layout; nothing of it is changed then. */
interface LayoutRefusal {
  readonly refused: string
}

/**
 * What a disk that is laid out becomes by a new layout, without losing anything that no other machine has: a partition for no image is never cut,
 * moved or removed, and no partition is moved. `disk`: the table as it is, with the images that partitions are for and new GUIDs in `uuids` for
 * what is added.
 */
export function changePlan(disk: DiskPlan, layout: DiskLayout, newGuid: () => string): LayoutChange | LayoutRefusal {
  const wanted: readonly LayoutPartition[] = [
    { label: ESP_LABEL, type: ESP_TYPE, size: layout.esp, grow: false },
    { label: STATE_LABEL, type: PARTITION_TYPES.linux, size: layout.state, grow: false },
    ...layout.partitions,
  ]
  const pairs = wanted.map((one): Pair => ({ wanted: one, there: matching(disk.partitions, wanted, one) }))
  const misfit = kindChange(disk.partitions, pairs)
  if (misfit !== undefined) return { refused: misfit }
  const resized = resize(disk, pairs)
  if ('refused' in resized) return resized
  const added = pairs.flatMap(({ wanted: one, there }) => (there === undefined ? [one] : []))
  const placed = place(resized.partitions, pairs, { added, size: disk.size, newGuid })
  if ('refused' in placed) return placed
  const plan = { ...disk, guid: layout.uuid ?? disk.guid, partitions: placed.partitions }
  const twice = plan.partitions.find(({ uuid }, at) => plan.partitions.findIndex((one) => one.uuid === uuid) !== at)
  if (twice !== undefined) return { refused: `${twice.label} would have the GUID of another partition, ${twice.uuid}` }
  const before = new Set(disk.partitions.map(({ number }) => number))
  const numbers = plan.partitions.map(({ number }) => number).filter((number) => !before.has(number))
  return { plan, added: numbers, told: differences(disk, plan) }
}

/** By its image; else by its name, unless the layout has the image of the partition with that name elsewhere. */
function matching(
  partitions: readonly PlannedPartition[],
  wanted: readonly LayoutPartition[],
  { image, label }: LayoutPartition,
): PlannedPartition | undefined {
  const byImage = image === undefined ? undefined : partitions.find((one) => one.image === image)
  if (byImage !== undefined) return byImage
  const named = partitions.find((one) => one.label === label)
  const isElsewhere = named?.image !== undefined && wanted.some((one) => one.image === named.image)
  return isElsewhere ? undefined : named
}

/** Why partitions cannot go on as what the layout makes of them. */
function kindChange(partitions: readonly PlannedPartition[], pairs: readonly Pair[]): string | undefined {
  for (const { wanted, there } of pairs) {
    if ([ESP_LABEL, STATE_LABEL].includes(wanted.label) && there === undefined)
      return `the disk has no partition ${wanted.label}`
    if (there !== undefined && there.image === undefined && wanted.image !== undefined)
      return `${there.label} belongs to no image, and image ${wanted.image} would overwrite what it holds`
    if (there?.image !== undefined && wanted.image === undefined)
      return `${there.label} is restored to image ${there.image}, and the layout makes it one that is left alone`
  }
  const own = partitions.find(({ image }) => image !== undefined)
  if (own !== undefined && pairs[2]?.there !== own)
    return `${own.label}, which the machine starts from, is not the first any more`
  return undefined
}

/** Partitions that are larger in the layout grow into free space behind them. */
function resize(
  { partitions, size }: DiskPlan,
  pairs: readonly Pair[],
): { readonly partitions: readonly PlannedPartition[] } | LayoutRefusal {
  const changed: PlannedPartition[] = []
  for (const one of partitions) {
    const wanted = pairs.find(({ there }) => there === one)?.wanted
    if (wanted === undefined) {
      // It stays as it is, and nothing restores it any more.
      const { image: _, system: __, ...rest } = one
      changed.push(rest)
      continue
    }
    const bytes = Math.max(one.size, wanted.size)
    const room = roomBehind(one, partitions, size)
    if (bytes > room)
      return { refused: `${one.label} has ${one.size} bytes and can have ${room}, and the layout wants ${bytes}` }
    const { grow: _, ...rest } = wanted
    changed.push({ ...one, ...rest, size: bytes, uuid: wanted.uuid ?? one.uuid })
  }
  return { partitions: changed }
}

/** Bytes that a partition can have at its place. */
function roomBehind(one: PlannedPartition, partitions: readonly PlannedPartition[], size: number): number {
  const next = partitions.filter(({ offset }) => offset > one.offset).map(({ offset }) => offset)
  return Math.max(one.size, Math.min(usableEnd(size), ...next) - one.offset)
}

/** What is behind it, at least one unit, holds the backup of the table. */
function usableEnd(size: number): number {
  return (Math.floor(size / LAYOUT_UNIT_BYTES) - 1) * LAYOUT_UNIT_BYTES
}

/** New partitions come behind all others. The last of those is cut for them if it is restored anyway, and stays as large as the layout says. */
function place(
  partitions: readonly PlannedPartition[],
  pairs: readonly Pair[],
  {
    added,
    size,
    newGuid,
  }: { readonly added: readonly LayoutPartition[]; readonly size: number; readonly newGuid: () => string },
): { readonly partitions: readonly PlannedPartition[] } | LayoutRefusal {
  const last = partitions.toSorted((a, b) => b.offset - a.offset)[0]!
  const wanted = pairs.find(({ there }) => there?.number === last.number)?.wanted
  const end = usableEnd(size)
  const least = added.reduce((sum, one) => sum + one.size, 0)
  const most = end - last.offset - least
  const isCuttable = last.image !== undefined && wanted !== undefined
  const needed = isCuttable ? wanted.size : last.size
  if (needed > most && added.length > 0) {
    const names = added.map(({ label }) => label).join(', ')
    const free = Math.max(0, end - last.offset - needed)
    return {
      refused: `${names} would take ${least} bytes, and ${free} are free at the end of the disk, behind ${last.label}`,
    }
  }
  const grows = added.some(({ grow }) => grow)
  const bytes =
    wanted?.grow === true
      ? Math.max(needed, most)
      : added.length === 0
        ? last.size
        : Math.min(last.size, grows && isCuttable ? needed : most)
  let offset = last.offset + bytes
  const rest = end - offset - least
  let number = Math.max(...partitions.filter(({ label }) => label !== BIOS_LABEL).map((one) => one.number))
  const placed = added.map(({ grow, ...one }): PlannedPartition => {
    const place = { offset, size: one.size + (grow ? rest : 0) }
    offset += place.size
    number += 1
    return { uuid: newGuid(), ...one, ...place, number }
  })
  const all = [...partitions.map((one) => (one === last ? { ...one, size: bytes } : one)), ...placed]
  return { partitions: all.toSorted((a, b) => a.number - b.number) }
}

function differences(before: DiskPlan, after: DiskPlan): string[] {
  const told = before.guid === after.guid ? [] : [`the disk has the GUID ${after.guid}`]
  for (const now of after.partitions) {
    const was = before.partitions.find(({ number }) => number === now.number)
    if (was === undefined) {
      told.push(`${now.label} is new, ${now.size} bytes`)
      continue
    }
    const name = was.label === now.label ? now.label : `${now.label}, until now ${was.label},`
    const changes = [
      ...(was.label === now.label ? [] : ['has another name']),
      ...(was.size === now.size ? [] : [`has ${now.size} bytes instead of ${was.size}`]),
      ...(was.type === now.type ? [] : [`has the type ${now.type}`]),
      ...(was.uuid === now.uuid ? [] : [`has the GUID ${now.uuid}`]),
      ...(was.image === now.image
        ? []
        : [now.image === undefined ? 'is restored no more' : `is for image ${now.image}`]),
      ...((was.system ?? false) === (now.system ?? false) || now.image === undefined
        ? []
        : [now.system === true ? 'is a system to choose' : 'is restored at every boot']),
    ]
    if (changes.length > 0) told.push(`${name} ${changes.join(', ')}`)
  }
  return told
}
