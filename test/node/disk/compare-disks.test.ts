import { describe, expect, it } from 'vitest'
import { compareDisks, mergeDisks } from '../../../node/disk/compare-disks.ts'
import { FACT_NAMES, type KnownDisk } from '../../../node/disk/known-disk.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'

const part = (facts: KnownDisk['facts'], size = 1000): KnownDisk => ({
  kind: 'partition',
  size,
  sectorBytes: 512,
  facts,
})
const disk = (facts: KnownDisk['facts'], size = 1000): KnownDisk => ({ ...part(facts, size), kind: 'disk' })
const loop = (file: string, size = 1000): KnownDisk => ({ ...part({ file }, size), kind: 'loop' })

describe('two looks at a disk', () => {
  it.each<[string, KnownDisk, KnownDisk, string]>([
    ['same drive', disk({ serial: 'a' }), disk({ serial: 'a' }), 'same'],
    ['other drive', disk({ serial: 'a' }), disk({ serial: 'b' }), 'other'],
    ['same serial number, other size', disk({ serial: '0' }), disk({ serial: '0' }, 2000), 'other'],
    ['same serial number, other wwid', disk({ serial: '0', wwid: '1' }), disk({ serial: '0', wwid: '2' }), 'other'],
    ['nothing known', disk({}), disk({}), 'untold'],
    ['nothing known of one', disk({ serial: 'a' }), disk({}), 'untold'],
    ['nothing known, other size', disk({}), disk({}, 2000), 'other'],
    ['other sectors', disk({}), { ...disk({}), sectorBytes: 4096 }, 'other'],
    ['a partition for a disk', disk({ serial: 'a' }), part({ serial: 'a' }), 'other'],
    ['same partition', part({ serial: 'a', partition: 'p' }), part({ serial: 'a', partition: 'p' }), 'same'],
    [
      'same partition, enlarged',
      part({ serial: 'a', partition: 'p' }),
      part({ serial: 'a', partition: 'p' }, 2000),
      'same',
    ],
    [
      'other partition of the drive',
      part({ serial: 'a', partition: 'p' }),
      part({ serial: 'a', partition: 'q' }),
      'other',
    ],
    [
      'other number, no UUID',
      part({ serial: 'a', partitionNumber: '1' }),
      part({ serial: 'a', partitionNumber: '2' }),
      'other',
    ],
    ['clone', part({ serial: 'a', partition: 'p' }), part({ serial: 'b', partition: 'p' }), 'clone'],
    [
      'clone of another size',
      part({ serial: 'a', partition: 'p' }),
      part({ serial: 'b', partition: 'p' }, 2000),
      'other',
    ],
    ['same UUID, hardware unknown', part({ partition: 'p' }), part({ serial: 'b', partition: 'p' }), 'untold'],
    ['words of udev that changed', disk({ wwid: '1', udevName: 'x' }), disk({ wwid: '1', udevName: 'y' }), 'same'],
    ['words of udev alone', disk({ udevName: 'x' }), disk({ udevName: 'y' }), 'other'],
    [
      'RAID with another drive',
      { ...disk({ raid: 'r' }), kind: 'raid' },
      { ...disk({ raid: 'r' }), kind: 'raid' },
      'same',
    ],
    ['same file behind a loop device', loop('f'), loop('f'), 'same'],
    ['other file behind a loop device', loop('f'), loop('g'), 'untold'],
  ])('%s', (_, a, b, likeness) => {
    expect(compareDisks(a, b)).toBe(likeness)
    expect(compareDisks(b, a)).toBe(likeness)
  })

  it('agree on whatever facts, in either order, and never call another drive the same', () => {
    const random = new Random(testSeed('compare disks'))
    const kinds = ['disk', 'partition', 'loop', 'mapped', 'raid', 'file'] as const
    const draw = (): KnownDisk => ({
      kind: kinds[random.below(random.below(2) === 0 ? 2 : kinds.length)]!,
      size: 1000 + random.below(2),
      ...(random.below(3) === 0 ? {} : { sectorBytes: 512 }),
      facts: Object.fromEntries(
        FACT_NAMES.filter(() => random.below(2) === 0).map((name) => [name, `${random.below(2)}`]),
      ),
    })
    for (let i = 0; i < 20_000; i++) {
      const [a, b] = [draw(), draw()]
      const likeness = compareDisks(a, b)
      const both = JSON.stringify([a, b])
      expect(compareDisks(b, a), both).toBe(likeness)
      expect(compareDisks(a, a), both).not.toBe('other')
      const differs = (['wwid', 'serial', 'raid', 'partition', 'mapped'] as const).some(
        (name) => a.facts[name] !== undefined && b.facts[name] !== undefined && a.facts[name] !== b.facts[name],
      )
      // A RAID outlives its drives.
      if (differs && (a.facts.raid === undefined || b.facts.raid === undefined))
        expect(['other', 'clone'], both).toContain(likeness)
      if (a.kind !== b.kind) expect(likeness, both).toBe('other')
      if (likeness === 'same') {
        // What was seen last is known from now on.
        expect(compareDisks(mergeDisks(a, b), b), both).toBe('same')
      }
    }
  })
})
