import { mkdir, open, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { compareStamps, stampOf, WITNESS_PLACES, type WitnessPlaces } from '../../../node/disk/disk-witness.ts'
import { readDriveCounter } from '../../../node/disk/drive-counter.ts'
import { attachLoop } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

async function write(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write('x', 0)
  await file.datasync()
}

describe('witnesses of what is written to a disk', () => {
  it('are the times of an image file, also where a program puts one of them back', async () => {
    const path = join(await temporaryDirectory(), 'disk')
    await writeFile(path, Buffer.alloc(4096))
    const before = await stampOf(path, 'file')
    expect(compareStamps(before, await stampOf(path, 'file'))).toEqual({ agreed: ['file times'] })
    const { atime, mtime } = await stat(path)
    await write(path)
    await utimes(path, atime, mtime)
    expect(compareStamps(before, await stampOf(path, 'file'))).toEqual({ changed: 'file times', agreed: [] })
  })

  it('are of a loop device the kernel’s count, and the times of the file behind it, which hold over a boot', async (context) => {
    const root = await temporaryDirectory()
    const file = join(root, 'disk')
    await writeFile(file, Buffer.alloc(1024 ** 2))
    const device = await attachLoop(file, context)
    const proc = join(root, 'proc')
    await mkdir(join(proc, 'sys/kernel/random'), { recursive: true })
    await writeFile(join(proc, 'sys/kernel/random/boot_id'), 'another boot\n')
    const next: WitnessPlaces = { ...WITNESS_PLACES, proc }
    const before = await stampOf(device, 'loop')
    expect(compareStamps(before, await stampOf(device, 'loop')).agreed).toEqual(['file times', 'device counter'])
    expect(compareStamps(before, await stampOf(device, 'loop', next))).toEqual({ agreed: ['file times'] })
    await write(device)
    expect(compareStamps(before, await stampOf(device, 'loop')).changed).toBe('file times')
    expect(compareStamps(before, await stampOf(device, 'loop', next)).changed).toBe('file times')
  })

  it('are of a whole drive what it counts itself, of a partition not', async () => {
    const root = await temporaryDirectory()
    const path = join(root, 'disk')
    await writeFile(path, '')
    let written = 'nvme 10'
    const places: WitnessPlaces = { sys: root, proc: root, driveCounter: async () => written }
    const [disk, partition] = [await stampOf(path, 'disk', places), await stampOf(path, 'partition', places)]
    expect(compareStamps(disk, await stampOf(path, 'disk', places)).agreed).toContain('drive counter')
    written = 'nvme 11'
    expect(compareStamps(disk, await stampOf(path, 'disk', places)).changed).toBe('drive counter')
    expect(compareStamps(partition, await stampOf(path, 'partition', places)).changed).toBe(undefined)
  })

  it('are of a device its count of sectors until it is attached anew, whatever it counts then', async () => {
    const root = await temporaryDirectory()
    const places = { sys: join(root, 'sys'), proc: join(root, 'proc') }
    const folder = join(places.sys, 'devices/vda')
    await mkdir(folder, { recursive: true })
    await mkdir(join(places.sys, 'dev/block'), { recursive: true })
    await mkdir(join(places.proc, 'sys/kernel/random'), { recursive: true })
    const { rdev } = await stat('/dev/null')
    await symlink('../../devices/vda', join(places.sys, `dev/block/${rdev >> 8}:${rdev & 255}`))
    expect(await stampOf('/dev/null', 'disk', { ...places, driveCounter: async () => undefined })).toBe('')
  })

  it('say nothing of each other, nor of a stamp of another kind', () => {
    expect(compareStamps('', 't12345678.123456789abc')).toEqual({ agreed: [] })
    expect(compareStamps('b12345678.aaaaaaaaaaaa', 'b87654321.bbbbbbbbbbbb')).toEqual({ agreed: [] })
    expect(compareStamps('x12345678.aaaaaaaaaaaa', 'x12345678.bbbbbbbbbbbb')).toEqual({ agreed: [] })
    expect(compareStamps('0123456789ab.0123', 't12345678.123456789abc')).toEqual({ agreed: [] })
  })
})

describe('the counter of a drive', () => {
  const counter = (output: unknown): Promise<string | undefined> =>
    readDriveCounter('/dev/x', async () => (typeof output === 'string' ? output : JSON.stringify(output)))

  it('is that of NVMe or of ATA, as smartctl prints it', async () => {
    expect(await counter({ nvme_smart_health_information_log: { host_writes: 12345 } })).toBe('nvme 12345')
    const table = [
      { name: 'Lifetime Power-On Resets', value: 7, flags: { valid: true } },
      { name: 'Logical Sectors Written', value: 987654321, flags: { valid: true } },
    ]
    expect(await counter({ ata_device_statistics: { pages: [{}, { table }] } })).toBe('ata 987654321')
  })

  it('is missing where the drive tells none, or the program is not there', async () => {
    const table = [{ name: 'Logical Sectors Written', value: 1, flags: { valid: false } }]
    for (const output of ['', 'no JSON', '{}', 'null', { ata_device_statistics: { pages: [{ table }] } }])
      expect(await counter(output)).toBe(undefined)
    expect(await readDriveCounter('/dev/x', async () => undefined)).toBe(undefined)
    expect(await readDriveCounter('/dev/null')).toBe(undefined)
  })
})
