import { describe, expect, it } from 'vitest'
import { type DiskLayout, decodeLayout, encodeLayout, PARTITION_TYPES } from '../../protocol/disk-layout.ts'
import { isMeshError } from '../../protocol/errors.ts'

const MIB = 1024 ** 2
const ROOT = { image: 'root', label: 'root', type: PARTITION_TYPES.root, size: 64 * MIB, grow: true }
const HOME = { label: 'home', type: PARTITION_TYPES.home, size: MIB, grow: false }
const LAYOUT: DiskLayout = { esp: 256 * MIB, state: 128 * MIB, agent: 'agent', partitions: [ROOT] }

const faultOf = (value: unknown): string => {
  try {
    decodeLayout(value)
  } catch (error) {
    if (isMeshError(error, 'LAYOUT_INVALID')) return error.message
    throw error
  }
  return 'none'
}

describe('a layout of disks', () => {
  it('is read as it was written', () => {
    expect(decodeLayout(encodeLayout(LAYOUT))).toEqual(LAYOUT)
    expect(encodeLayout(LAYOUT)).toHaveProperty('format', 1)
    const plain: DiskLayout = { esp: LAYOUT.esp, state: LAYOUT.state, partitions: [{ ...ROOT, grow: false }] }
    expect(decodeLayout(encodeLayout(plain))).toEqual(plain)
  })

  it('with a partition for no image is one that earlier versions must not lay out', () => {
    const windows = { ...ROOT, image: 'win', label: 'win', grow: false, system: true }
    const uuid = '1b0f3f6c-4a3e-4b0f-9a3c-0d8a1f6e2c11'
    const layout: DiskLayout = { ...LAYOUT, uuid, partitions: [ROOT, windows, HOME, { ...HOME, label: 'more' }] }
    expect(decodeLayout(encodeLayout(layout))).toEqual(layout)
    expect(encodeLayout(layout)).toHaveProperty('format', 2)
    expect(encodeLayout({ ...layout, partitions: [ROOT, windows] })).toHaveProperty('format', 1)
  })

  it.each([
    ['is damaged: esp is missing or wrong', { ...LAYOUT, esp: 127 * MIB }],
    ['is damaged: esp is missing or wrong', { ...LAYOUT, esp: 256 * MIB + 512 }],
    ['is damaged: state is missing or wrong', { ...LAYOUT, state: 31 * MIB }],
    ['is damaged: agent is missing or wrong', { ...LAYOUT, agent: '../agent' }],
    ['is damaged: partitions[0].size is missing or wrong', { ...LAYOUT, partitions: [{ ...ROOT, size: 0 }] }],
    ['is damaged: partitions[0].type is missing or wrong', { ...LAYOUT, partitions: [{ ...ROOT, type: '83' }] }],
    [
      'is damaged: partitions[0].label is missing or wrong',
      { ...LAYOUT, partitions: [{ ...ROOT, label: 'x\u001b[2J' }] },
    ],
    ['is damaged: partitions is missing or wrong', { ...LAYOUT, partitions: Array.from({ length: 17 }, () => ROOT) }],
    ['its first partition is for no image', { ...LAYOUT, partitions: [] }],
    ['its first partition is for no image', { ...LAYOUT, partitions: [HOME] }],
    ['home is for no image, so it can be no system', { ...LAYOUT, partitions: [ROOT, { ...HOME, system: true }] }],
    ['only one partition can grow', { ...LAYOUT, partitions: [ROOT, { ...ROOT, image: 'b', label: 'b' }] }],
    ['two partitions have the image root', { ...LAYOUT, agent: 'root' }],
    ['two partitions have the label lab-state', { ...LAYOUT, partitions: [{ ...ROOT, label: 'lab-state' }] }],
    ['the layout of disks is damaged: it is something else', 'text'],
  ])('is refused: %s', (why, value) => {
    expect(faultOf(value)).toContain(why)
  })
})
