import { describe, expect, it } from 'vitest'
import { changePlan, type LayoutChange } from '../../../node/disk/change-plan.ts'
import { type DiskPlan, planDisk } from '../../../node/disk/plan-disk.ts'
import { type DiskLayout, type LayoutPartition, PARTITION_TYPES } from '../../../protocol/disk-layout.ts'

const MIB = 1024 ** 2
const GUIDS = [
  '00000000-0000-4000-8000-000000000001',
  '00000000-0000-4000-8000-000000000002',
  '00000000-0000-4000-8000-000000000003',
]
const part = (label: string, mib: number, more: Partial<LayoutPartition> = {}): LayoutPartition => ({
  label,
  type: PARTITION_TYPES.linux,
  size: mib * MIB,
  grow: false,
  ...more,
})
const ROOT = part('root', 40, { image: 'root', type: PARTITION_TYPES.root })
const WIN = part('win', 20, { image: 'win', system: true })
const HOME = part('home', 10)
const layoutOf = (...partitions: LayoutPartition[]): DiskLayout => ({ esp: 128 * MIB, state: 32 * MIB, partitions })
/** MiB that the table, its backup, ESP and state take. */
const FIXED = 162

function laidOut(mib: number, ...partitions: LayoutPartition[]): DiskPlan {
  return planDisk(layoutOf(...partitions), { path: '/dev/sda', size: mib * MIB, sectorBytes: 512 })
}

function changed(disk: DiskPlan, layout: DiskLayout): LayoutChange {
  const guids = [...GUIDS]
  const change = changePlan(disk, layout, () => guids.shift()!)
  if ('refused' in change) throw new Error(change.refused)
  return change
}

const sizes = ({ plan }: LayoutChange) =>
  // The loader for BIOS is the last.
  Object.fromEntries(plan.partitions.slice(2, -1).map(({ number, label, size }) => [`${number} ${label}`, size / MIB]))

describe('a disk that follows a new layout', () => {
  it('changes nothing by the layout that it has, whatever is smaller there', () => {
    const disk = laidOut(FIXED + 100, { ...ROOT, grow: true }, WIN)
    for (const layout of [layoutOf({ ...ROOT, grow: true }, WIN), layoutOf({ ...ROOT, size: MIB }, WIN)])
      expect(changed(disk, layout)).toEqual({ plan: disk, added: [], told: [] })
  })

  it('gets new partitions in the free space at its end', () => {
    const disk = laidOut(FIXED + 200, ROOT)
    const change = changed(disk, layoutOf(ROOT, WIN, { ...HOME, grow: true }))
    expect(sizes(change)).toEqual({ '3 root': 40, '4 win': 20, '5 home': 140 })
    expect(change.added).toEqual([4, 5])
    expect(change.plan.partitions[4]).toMatchObject({ uuid: GUIDS[1], offset: (1 + 160 + 60) * MIB })
    expect(change.told).toEqual([`win is new, ${20 * MIB} bytes`, `home is new, ${140 * MIB} bytes`])
    expect(change.plan.partitions.filter(({ number }) => number < 4 || number === 128)).toEqual(disk.partitions)
  })

  it('cuts the last partition for them if that is restored anyway', () => {
    const disk = laidOut(FIXED + 200, { ...ROOT, grow: true })
    expect(sizes(changed(disk, layoutOf(ROOT, { ...HOME, grow: true })))).toEqual({ '3 root': 40, '4 home': 160 })
    expect(sizes(changed(disk, layoutOf(ROOT, HOME)))).toEqual({ '3 root': 190, '4 home': 10 })
    expect(sizes(changed(disk, layoutOf({ ...ROOT, grow: true }, HOME)))).toEqual({ '3 root': 190, '4 home': 10 })
  })

  it('has larger partitions where there is room behind them, also on a disk that became larger', () => {
    const disk = laidOut(FIXED + 100, ROOT)
    expect(sizes(changed(disk, layoutOf({ ...ROOT, size: 90 * MIB })))).toEqual({ '3 root': 90 })
    const larger = { ...laidOut(FIXED + 100, { ...ROOT, grow: true }), size: (FIXED + 300) * MIB }
    expect(sizes(changed(larger, layoutOf({ ...ROOT, grow: true })))).toEqual({ '3 root': 300 })
  })

  it('has other names, types, GUIDs and images', () => {
    const disk = laidOut(FIXED + 100, ROOT, WIN)
    const uuid = '1b0f3f6c-4a3e-4b0f-9a3c-0d8a1f6e2c11'
    const renamed = { ...WIN, label: 'Windows', type: PARTITION_TYPES.windows, uuid, system: false }
    expect(changed(disk, layoutOf(ROOT, renamed)).told).toEqual([
      `Windows, until now win, has another name, has the type ${PARTITION_TYPES.windows}, has the GUID ${uuid}, is restored at every boot`,
    ])
    const { plan, told } = changed(disk, { ...layoutOf(ROOT, { ...WIN, image: 'win12' }), uuid })
    expect(told).toEqual([`the disk has the GUID ${uuid}`, 'win is for image win12'])
    expect(plan.partitions[3]).toEqual({ ...disk.partitions[3], image: 'win12' })
  })

  it('keeps a partition that the layout has no more, and restores it no more', () => {
    const { plan, told } = changed(laidOut(FIXED + 100, ROOT, WIN, HOME), layoutOf(ROOT))
    expect(told).toEqual(['win is restored no more'])
    expect(plan.partitions.map(({ label }) => label)).toEqual([
      'lab-esp',
      'lab-state',
      'root',
      'win',
      'home',
      'lab-bios',
    ])
  })

  it.each([
    ['win has 20971520 bytes and can have 20971520', [ROOT, WIN, HOME], [ROOT, { ...WIN, size: 21 * MIB }, HOME]],
    ['more would take 83886080 bytes, and 31457280 are free', [ROOT, WIN, HOME], [ROOT, WIN, HOME, part('more', 80)]],
    ['more would take 10485760 bytes, and 0 are free', [ROOT, { ...HOME, grow: true }], [ROOT, HOME, part('more', 10)]],
    ['more would take 83886080 bytes, and 62914560 are free', [{ ...ROOT, grow: true }], [ROOT, part('more', 80)]],
    ['home belongs to no image, and image win would', [ROOT, HOME], [ROOT, { ...HOME, image: 'win' }]],
    ['win is restored to image win, and the layout makes', [ROOT, WIN], [ROOT, { ...HOME, label: 'win' }]],
    ['root, which the machine starts from, is not the first', [ROOT, WIN], [WIN, ROOT]],
    ['b would have the GUID of another', [ROOT], [{ ...ROOT, uuid: GUIDS[2]! }, part('b', 1, { uuid: GUIDS[2]! })]],
  ] as const)('refuses what would lose data, and says where: %s', (why, before, after) => {
    const disk = laidOut(FIXED + 100, ...before)
    const refusal = changePlan(disk, layoutOf(...after), () => GUIDS[0]!)
    expect(refusal).toEqual({ refused: expect.stringContaining(why) as string })
  })

  it('refuses a larger ESP, and a disk without one', () => {
    const disk = laidOut(FIXED + 100, ROOT)
    const larger = changePlan(disk, { ...layoutOf(ROOT), esp: 256 * MIB }, () => GUIDS[0]!)
    expect(larger).toEqual({ refused: expect.stringMatching(/^lab-esp has \d+ bytes/) as string })
    const without = { ...disk, partitions: disk.partitions.slice(1) }
    expect(changePlan(without, layoutOf(ROOT), () => GUIDS[0]!)).toEqual({
      refused: 'the disk has no partition lab-esp',
    })
  })
})
