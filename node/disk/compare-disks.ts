import type { DiskFactValues, FactName, KnownDisk } from './known-disk.ts'

/**
 * What two looks at a disk say of each other. `same`: the hardware says that it is the same disk. `clone`: the same partition (or
 * volume) by its UUID, on other hardware. `untold`: nothing that both know tells the two apart, or makes them the same.
 * `other`: another disk.
 */
type Likeness = 'same' | 'clone' | 'untold' | 'other'

/**
 * Facts about the drive, by who tells them. The first group of which both know a fact decides: the words of udev change with its
 * version, the kernel's do not.
 */
const HARDWARE: readonly (readonly FactName[])[] = [['wwid', 'serial'], ['udevWwn'], ['udevSerial'], ['udevName']]

/** Compares what both know; the order of the two does not matter. */
export function compareDisks(a: KnownDisk, b: KnownDisk): Likeness {
  if (a.kind !== b.kind) return 'other'
  if (a.sectorBytes !== undefined && b.sectorBytes !== undefined && a.sectorBytes !== b.sectorBytes) return 'other'
  const named = sameName(a.facts, b.facts)
  if (named === false) return 'other'
  const isSameSize = a.size === b.size
  const hardware = sameHardware(a.facts, b.facts)
  if (hardware === false) return named === true && isSameSize ? 'clone' : 'other'
  // A partition or volume that was made larger is still the same; a drive that has another size is another one.
  if (hardware === true) return isSameSize || named === true ? 'same' : 'other'
  if (agree(a.facts, b.facts, 'file') === true) return 'same'
  return isSameSize || a.kind === 'file' ? 'untold' : 'other'
}

/** Whether both are on the same hardware, as far as both know; a RAID is its own hardware. */
export function sameHardware(a: DiskFactValues, b: DiskFactValues): boolean | undefined {
  const raid = agree(a, b, 'raid')
  if (raid !== undefined) return raid
  for (const group of HARDWARE) {
    const verdicts = group.map((name) => agree(a, b, name)).filter((verdict) => verdict !== undefined)
    if (verdicts.length > 0) return verdicts.every((verdict) => verdict)
  }
  return undefined
}

/** Whether both have the same partition or volume by its UUID; partitions without one by their number, which proves no sameness. */
export function sameName(a: DiskFactValues, b: DiskFactValues): boolean | undefined {
  const verdicts = [agree(a, b, 'partition'), agree(a, b, 'mapped')].filter((verdict) => verdict !== undefined)
  if (verdicts.length > 0) return verdicts.every((verdict) => verdict)
  return agree(a, b, 'partitionNumber') === false ? false : undefined
}

/** Undefined unless both know the fact. */
export function agree(a: DiskFactValues, b: DiskFactValues, name: FactName): boolean | undefined {
  const [left, right] = [a[name], b[name]]
  return left === undefined || right === undefined ? undefined : left === right
}

/** What both looks found, of a disk that is the same: newer words replace older ones. */
export function mergeDisks(before: KnownDisk, now: KnownDisk): KnownDisk {
  return { ...before, ...now, facts: { ...before.facts, ...now.facts } }
}
