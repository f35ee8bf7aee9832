import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { compareDisks } from '../../../node/disk/compare-disks.ts'
import { attachmentOf, markDoubt, markOf } from '../../../node/disk/disk-mark.ts'
import { FACT_NAMES, type KnownDisk } from '../../../node/disk/known-disk.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const disk = (facts: KnownDisk['facts'], kind: KnownDisk['kind'] = 'disk'): KnownDisk => ({ kind, size: 1000, facts })
const doubt = (a: KnownDisk, b: KnownDisk, attached: readonly (string | undefined)[] = []): string | undefined =>
  markDoubt(markOf(a, attached[0]), markOf(b, attached[1]))

describe('the mark by which a log knows its disk', () => {
  it('is of the same disk if the hardware says so, whatever else is known', () => {
    expect(doubt(disk({ serial: 'a' }), disk({ serial: 'a', wwid: 'w', udevName: 'new words' }))).toBe(undefined)
    expect(doubt(disk({ udevName: 'a' }), disk({ udevName: 'a' }))).toBe(undefined)
    expect(doubt(disk({ file: 'f' }, 'file'), disk({ file: 'f' }, 'file'))).toBe(undefined)
    expect(doubt(disk({ raid: 'r' }, 'raid'), disk({ raid: 'r' }, 'raid'))).toBe(undefined)
  })

  it.each<[string, KnownDisk, KnownDisk, RegExp]>([
    ['another serial number', disk({ serial: 'a' }), disk({ serial: 'b' }), /another disk/],
    ['a clone', disk({ serial: 'a', partition: 'p' }), disk({ serial: 'b', partition: 'p' }), /another disk/],
    ['another partition', disk({ serial: 'a', partition: 'p' }), disk({ serial: 'a', partition: 'q' }), /another disk/],
    ['another kind', disk({ serial: 'a' }), disk({ serial: 'a' }, 'partition'), /another disk/],
    ['another file', disk({ file: 'f' }, 'loop'), disk({ file: 'g' }, 'loop'), /another image file/],
    ['nothing in common', disk({ serial: 'a' }), disk({ udevName: 'a' }), /nothing tells/],
    ['the partition alone', disk({ partition: 'p' }), disk({ partition: 'p' }), /nothing tells/],
  ])('is doubted for %s', (_, a, b, reason) => {
    expect(doubt(a, b)).toMatch(reason)
    expect(doubt(b, a)).toMatch(reason)
  })

  it('holds until the device is detached or the machine boots, where it shows no serial number', () => {
    const plain = disk({ partition: 'p' })
    expect(doubt(plain, plain, ['boot 1', 'boot 1'])).toBe(undefined)
    expect(doubt(plain, plain, ['boot 1', 'boot 2'])).toMatch(/nothing tells/)
    expect(doubt(plain, plain, ['boot 1', undefined])).toMatch(/nothing tells/)
    expect(doubt(disk({ file: 'f' }), disk({ file: 'g' }), ['boot 1', 'boot 1'])).toMatch(/another image file/)
  })

  it.each(['', 'a1', '0123456789abcdef01234567', 'k12345678 s12345678'])('is none: %j', (text) => {
    expect(markDoubt(text, markOf(disk({ serial: 'a' })))).toBe('the log does not say of which disk it is')
  })

  it('believes no log of a disk that is not surely the same', () => {
    const random = new Random(testSeed('disk marks'))
    const draw = (): KnownDisk => ({
      kind: (['disk', 'loop', 'partition'] as const)[random.below(3)]!,
      size: 1000,
      facts: Object.fromEntries(
        FACT_NAMES.filter(() => random.below(3) === 0).map((name) => [name, `${random.below(2)}`]),
      ),
    })
    let believed = 0
    for (let i = 0; i < 20_000; i++) {
      const [a, b] = [draw(), draw()]
      // The size stands beside the mark in the log.
      if (doubt(a, b) !== undefined) continue
      believed++
      expect(compareDisks(a, b), JSON.stringify([a, b])).toBe('same')
    }
    expect(believed).toBeGreaterThan(500)
  })
})

describe('the number of an attached device', () => {
  it('is the kernel’s, of a partition that of its disk, and another one after a boot', async () => {
    const root = await temporaryDirectory()
    const places = { sys: join(root, 'sys'), proc: join(root, 'proc') }
    await mkdir(join(places.sys, 'dev/block'), { recursive: true })
    await mkdir(join(places.sys, 'devices/sda/sda1'), { recursive: true })
    await mkdir(join(places.proc, 'sys/kernel/random'), { recursive: true })
    await writeFile(join(places.sys, 'devices/sda/diskseq'), '9\n')
    await writeFile(join(places.proc, 'sys/kernel/random/boot_id'), 'b1\n')
    await symlink('../../devices/sda', join(places.sys, 'dev/block/8:0'))
    await symlink('../../devices/sda/sda1', join(places.sys, 'dev/block/8:1'))
    expect(await attachmentOf('8:0', places)).toBe('b1 9')
    expect(await attachmentOf('8:1', places)).toBe('b1 9')
    expect(await attachmentOf('8:2', places)).toBe(undefined)
    await writeFile(join(places.proc, 'sys/kernel/random/boot_id'), 'b2\n')
    expect(await attachmentOf('8:0', places)).toBe('b2 9')
  })
})
