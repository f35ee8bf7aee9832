import { copyFile, link, mkdir, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { findDisk } from '../../../node/disk/find-disk.ts'
import { describeDisk } from '../../../node/disk/known-disk.ts'
import { fileMark, readBlockDevice, readDisk } from '../../../node/disk/read-disk.ts'
import { codeOf } from '../../support/error-code.ts'
import { FakeDisks } from '../../support/fake-disks.ts'
import { gptBytes } from '../../support/gpt.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const UUID = '0fc63daf-8483-4772-8e79-3d69d8477de4'
/** Page "unit serial number" of a SATA drive, which pads it with blanks. */
const PAGE_80 = Buffer.from('\x00\x80\x00\x14      S1XYNYAG800123', 'latin1')
const SATA = {
  'queue/logical_block_size': '512\n',
  'device/model': 'SAMSUNG MZ7LN256\n',
  'device/wwid': 'naa.5002538d40e8f1b7\n',
  'device/vpd_pg80': PAGE_80,
  size: '500118192\n',
}

describe('what a disk is known by', () => {
  it('is wwid and serial number of a drive, as the kernel tells them', async () => {
    const fake = await FakeDisks.make()
    await fake.add('sda', '8:0', SATA)
    expect(await readBlockDevice('8:0', fake.places)).toEqual({
      kind: 'disk',
      size: 500118192 * 512,
      sectorBytes: 512,
      model: 'SAMSUNG MZ7LN256',
      facts: { wwid: 'naa.5002538d40e8f1b7', serial: 'S1XYNYAG800123' },
    })
  })

  it('is also what udev says, and its stable link', async () => {
    const fake = await FakeDisks.make()
    const udev = [
      'S:disk/by-partuuid/ab',
      'S:disk/by-id/ata-B',
      'S:disk/by-id/ata-A',
      'E:ID_SERIAL=SAMSUNG_1',
      'E:ID_SERIAL_SHORT=1',
      'E:ID_WWN=0x5002538d40e8f1b7',
    ]
    await fake.add('sda', '8:0', {}, udev)
    expect(await readBlockDevice('8:0', fake.places)).toMatchObject({
      link: '/dev/disk/by-id/ata-A',
      facts: { udevName: 'SAMSUNG_1', udevSerial: '1', udevWwn: '0x5002538d40e8f1b7' },
    })
  })

  it.each([
    [
      'NVMe',
      'nvme0n1',
      { wwid: 'eui.0025385b71b0a1c2\n', 'device/serial': 'S4EV \n' },
      { wwid: 'eui.0025385b71b0a1c2', serial: 'S4EV' },
    ],
    ['virtio', 'vda', { serial: 'lab-7\n' }, { serial: 'lab-7' }],
    ['MMC', 'mmcblk0', { 'device/cid': '1501004d\n', 'device/serial': '0x7f\n' }, { wwid: '1501004d', serial: '0x7f' }],
    ['virtio without serial number', 'vda', {}, {}],
  ])('is told by %s', async (_, name, files, facts) => {
    const fake = await FakeDisks.make()
    await fake.add(name, '259:0', files)
    expect((await readBlockDevice('259:0', fake.places)).facts).toEqual(facts)
  })

  it('is of a partition its UUID and the drive’s facts, by udev', async () => {
    const fake = await FakeDisks.make()
    await fake.add('sda', '8:0', SATA)
    await fake.add('sda/sda3', '8:3', { partition: '3\n' }, [`E:ID_PART_ENTRY_UUID=${UUID.toUpperCase()}`])
    const disk = await readBlockDevice('8:3', fake.places)
    expect(disk).toMatchObject({ kind: 'partition', sectorBytes: 512, model: 'SAMSUNG MZ7LN256' })
    expect(disk.facts).toEqual({
      wwid: 'naa.5002538d40e8f1b7',
      serial: 'S1XYNYAG800123',
      partition: UUID,
      partitionNumber: '3',
    })
    expect(describeDisk('/dev/sda3', disk)).toBe(
      `/dev/sda3 (partition ${UUID}, 1048576 bytes, SAMSUNG MZ7LN256, serial number S1XYNYAG800123)`,
    )
  })

  it('is the same without udev: the UUID stands in the partition table', async () => {
    const fake = await FakeDisks.make()
    await fake.add('sda', '8:0', SATA)
    await fake.add('sda/sda1', '8:1', { partition: '1\n' })
    await writeFile(join(fake.places.dev, 'sda'), gptBytes([{ uuid: UUID, first: 64, last: 2111 }], { sectors: 4096 }))
    expect((await readBlockDevice('8:1', fake.places)).facts.partition).toBe(UUID)
  })

  it('is of a volume its UUID and that of all it stands on; of a RAID the RAID’s', async () => {
    const fake = await FakeDisks.make()
    await fake.add('sda', '8:0', { 'device/wwid': 'naa.b' })
    await fake.add('sda/sda1', '8:1', { partition: '1' })
    await fake.add('sdb', '8:16', { 'device/wwid': 'naa.a' })
    await fake.add('md0', '9:0', { 'md/uuid': 'raid-1' })
    await fake.add('dm-0', '254:0', { 'dm/uuid': 'LVM-x', 'dm/name': 'lab' })
    await fake.stack('dm-0', 'sda/sda1')
    await fake.stack('dm-0', 'sdb')
    await fake.add('dm-1', '254:1', { 'dm/uuid': 'CRYPT-y' })
    await fake.stack('dm-1', 'md0')
    await fake.stack('md0', 'sdb')
    const volume = await readBlockDevice('254:0', fake.places)
    expect(volume.kind).toBe('mapped')
    expect(volume.facts).toEqual({ mapped: 'LVM-x', wwid: 'naa.a naa.b' })
    expect((await readBlockDevice('9:0', fake.places)).facts).toEqual({ raid: 'raid-1' })
    expect((await readBlockDevice('254:1', fake.places)).facts).toEqual({ mapped: 'CRYPT-y', raid: 'raid-1' })
  })

  it('is of a loop device the file behind it, whatever its name', async () => {
    const fake = await FakeDisks.make()
    const [a, b] = [join(fake.places.dev, 'a.img'), join(fake.places.dev, 'b.img')]
    await writeFile(a, 'a')
    await copyFile(a, b)
    await fake.add('loop0', '7:0', { 'loop/backing_file': `${a}\n` })
    await fake.add('loop1', '7:1', { 'loop/backing_file': `${b}\n` })
    await fake.add('loop2', '7:2', { 'loop/backing_file': `${a}\n`, 'loop/offset': '512\n' })
    const [first, second, third] = await Promise.all(['7:0', '7:1', '7:2'].map((n) => readBlockDevice(n, fake.places)))
    expect(first).toMatchObject({ kind: 'loop', facts: { file: await fileMark(a) } })
    expect(new Set([first, second, third].map((one) => one?.facts.file)).size).toBe(3)
  })

  it('is of a file what stays when it is renamed or grows, and is another one for a copy', async () => {
    const folder = await temporaryDirectory()
    const [path, other] = [join(folder, 'disk.img'), join(folder, 'other.img')]
    await writeFile(path, 'content')
    await link(path, join(folder, 'link'))
    const before = await readDisk(path)
    expect(before).toMatchObject({ kind: 'file', size: 7 })
    expect(before.facts.file).toMatch(/^\d+\.\d*$/)
    await copyFile(path, other)
    expect((await readDisk(other)).facts).not.toEqual(before.facts)
    await truncate(path, 100)
    await rename(path, join(folder, 'renamed'))
    expect(await readDisk(join(folder, 'renamed'))).toEqual({ ...before, size: 100 })
    expect((await readDisk(join(folder, 'link'))).facts).toEqual(before.facts)
  })

  it('needs a disk', async () => {
    const folder = await temporaryDirectory()
    expect(await codeOf(readDisk(join(folder, 'none')))).toBe('DISK_MISSING')
    expect(await codeOf(readDisk(folder))).toBe('DISK_NOT_A_DISK')
    const fake = await FakeDisks.make()
    expect(await codeOf(readBlockDevice('8:0', fake.places))).toBe('DISK_MISSING')
    const places = { ...fake.places, sys: join(fake.places.sys, 'none') }
    expect(await codeOf(readBlockDevice('8:0', places))).toBe('KERNEL_FILES_MISSING')
  })
})

describe('a disk that is looked for', () => {
  it('is found under its new name, and only if it is that disk', async () => {
    const fake = await FakeDisks.make()
    await fake.add('sda', '8:0', { 'device/wwid': 'naa.1' })
    await fake.add('sda/sda3', '8:3', { partition: '3' }, [`E:ID_PART_ENTRY_UUID=${UUID}`])
    await fake.add('sdb', '8:16', { 'device/wwid': 'naa.2' })
    await fake.add('sdb/sdb3', '8:19', { partition: '3' }, [`E:ID_PART_ENTRY_UUID=${UUID}`])
    const known = await readBlockDevice('8:19', fake.places)
    expect((await findDisk(known, fake.places)).map(({ path }) => path)).toEqual([join(fake.places.dev, 'sdb3')])
    expect(await findDisk({ ...known, facts: { ...known.facts, wwid: 'naa.3' } }, fake.places)).toEqual([])
  })

  it('is found twice where nothing tells a copy from it', async () => {
    const fake = await FakeDisks.make()
    for (const [i, name] of ['vda', 'vdb'].entries()) {
      await fake.add(name, `252:${i * 16}`)
      await fake.add(`${name}/${name}1`, `252:${i * 16 + 1}`, { partition: '1' }, [`E:ID_PART_ENTRY_UUID=${UUID}`])
    }
    const known = await readBlockDevice('252:1', fake.places)
    expect(await findDisk(known, fake.places)).toHaveLength(2)
    await mkdir(join(fake.places.sys, 'empty'))
    expect(await findDisk(known, { ...fake.places, sys: join(fake.places.sys, 'empty') })).toEqual([])
  })
})
