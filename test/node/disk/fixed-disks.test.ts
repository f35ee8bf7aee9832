import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { chooseFixedDisk, fixedDisks } from '../../../node/disk/fixed-disks.ts'
import { codeOf } from '../../support/error-code.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const GIB = 1024 ** 3
const SECTORS = GIB / 512

/** Disks as the kernel has them in /sys: files by name, and where the device is. */
async function kernel(disks: Readonly<Record<string, { at?: string; [file: string]: string | undefined }>>) {
  const sys = await temporaryDirectory()
  await mkdir(join(sys, 'block'))
  for (const [name, { at = 'pci0000:00/0000:00:1f.2', ...files }] of Object.entries(disks)) {
    const folder = join(sys, 'devices', at, 'block', name)
    for (const [file, text] of Object.entries({ size: `${SECTORS}\n`, removable: '0\n', ro: '0\n', ...files })) {
      await mkdir(dirname(join(folder, file)), { recursive: true })
      await writeFile(join(folder, file), text ?? '')
    }
    await symlink(folder, join(sys, 'block', name))
  }
  return fixedDisks(sys)
}

describe('the disks that are built into a computer', () => {
  it('are neither sticks, memory cards, CDs, nor disks of the kernel’s own', async () => {
    const found = await kernel({
      sda: { 'device/model': 'SAMSUNG MZ7LN256  \n', 'queue/logical_block_size': '512\n' },
      sdb: { removable: '1\n' },
      sdc: { at: 'pci0000:00/0000:00:14.0/usb2/2-1' },
      sdd: { ro: '1\n' },
      sde: { size: '0\n' },
      nvme0n1: { 'queue/logical_block_size': '4096\n' },
      mmcblk0: { 'device/type': 'MMC\n' },
      mmcblk0boot0: {},
      mmcblk1: { 'device/type': 'SD\n' },
      sr0: {},
      loop0: {},
    })
    expect(found).toEqual([
      { path: '/dev/mmcblk0', size: GIB, sectorBytes: 512, model: '' },
      { path: '/dev/nvme0n1', size: GIB, sectorBytes: 4096, model: '' },
      { path: '/dev/sda', size: GIB, sectorBytes: 512, model: 'SAMSUNG MZ7LN256' },
    ])
  })

  it('are chosen from only if one is meant without doubt', async () => {
    const [sda, sdb, small] = [
      { path: '/dev/sda', size: GIB, sectorBytes: 512, model: 'A' },
      { path: '/dev/sdb', size: 2 * GIB, sectorBytes: 512, model: '' },
      { path: '/dev/sdc', size: GIB / 8, sectorBytes: 512, model: '' },
    ]
    expect(chooseFixedDisk([sda!, small!], GIB)).toBe(sda)
    expect(chooseFixedDisk([sda!, sdb!], GIB, '/dev/sdb')).toBe(sdb)
    expect(await codeOf(() => chooseFixedDisk([sda!, sdb!], GIB))).toBe('BOOT_DISK_UNCLEAR')
    expect(() => chooseFixedDisk([sda!, sdb!], GIB)).toThrow(
      '/dev/sda (1073741824 bytes, A), /dev/sdb (2147483648 bytes)',
    )
    expect(await codeOf(() => chooseFixedDisk([sda!], GIB, '/dev/sdb'))).toBe('DISK_MISSING')
    expect(await codeOf(() => chooseFixedDisk([], GIB))).toBe('DISK_MISSING')
    expect(await codeOf(() => chooseFixedDisk([small!], GIB))).toBe('DISK_TOO_SMALL')
  })
})
