import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { describeContent, readDiskContent } from '../../../node/disk/disk-content.ts'
import { openDevice } from '../../../node/disk/file-device.ts'
import { Random } from '../../../tools/lab/random.ts'
import { hasTool, runTool } from '../../../tools/lab/run-tool.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 * 1024
const random = new Random(73)

async function contentOf(path: string) {
  const device = await openDevice(path, { writable: false })
  return readDiskContent(device).finally(() => device.close())
}

async function blank(size: number): Promise<string> {
  const path = join(await temporaryDirectory(), 'disk.img')
  const file = await open(path, 'w')
  await file.truncate(size)
  await file.close()
  return path
}

/** A tool that makes something on a disk, what is found there, and how large the disk has to be. */
const MADE: readonly (readonly [name: string, tool: string, args: readonly string[], sizeMib: number])[] = [
  ['ext2', 'mke2fs', ['-q', '-F', '-t', 'ext2'], 8],
  ['ext3', 'mke2fs', ['-q', '-F', '-t', 'ext3'], 8],
  ['ext4', 'mke2fs', ['-q', '-F', '-t', 'ext4'], 8],
  ['xfs', 'mkfs.xfs', ['-q'], 320],
  ['btrfs', 'mkfs.btrfs', ['-q'], 128],
  ['ntfs', 'mkntfs', ['-q', '-F', '-f'], 8],
  ['vfat', 'mkfs.fat', ['-F', '12'], 2],
  ['vfat', 'mkfs.fat', ['-F', '16'], 16],
  ['vfat', 'mkfs.fat', ['-F', '32'], 40],
  ['exfat', 'mkfs.exfat', [], 8],
  ['swap', 'mkswap', [], 2],
  ['LUKS', 'cryptsetup', ['-q', 'luksFormat', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'], 32],
]

describe('what a disk holds', () => {
  it.for(MADE)('%s, made by %s %s', async ([name, tool, args, sizeMib], context) => {
    if (!(await hasTool(tool))) {
      console.log(`SKIPPED: ${tool} is not installed`)
      return context.skip()
    }
    const path = await blank(sizeMib * MIB)
    const key = `${path}.key`
    await writeFile(key, 'secret')
    await runTool(tool, [...args, path, ...(tool === 'cryptsetup' ? [key] : [])])
    expect(await contentOf(path)).toEqual({ fileSystems: [name] })
  })

  it('a table with its partitions, and what they hold', async (context) => {
    if (!(await hasTool('sgdisk'))) {
      console.log('SKIPPED: sgdisk is not installed')
      return context.skip()
    }
    const path = await blank(32 * MIB)
    await runTool('sgdisk', ['-n', '1:2048:+8M', '-n', '2:0:+8M', '-n', '3:0:+4M', path])
    await runTool('mke2fs', ['-q', '-F', '-t', 'ext4', '-E', `offset=${MIB}`, path, '8M'])
    const content = await contentOf(path)
    expect(content).toEqual({ table: { kind: 'GPT', partitions: 3, sectorSize: 512 }, fileSystems: ['ext4'] })
    expect(describeContent(content)).toBe('GPT with 3 partitions: ext4')
  })

  it('an MBR, whose sectors its file systems tell', async (context) => {
    if (!(await hasTool('sfdisk'))) {
      console.log('SKIPPED: sfdisk is not installed')
      return context.skip()
    }
    const path = await blank(16 * MIB)
    const table = `${path}.table`
    await writeFile(table, 'label: dos\nstart=2048, size=16384, type=83\n')
    await runTool('sh', ['-c', 'exec sfdisk -q "$0" < "$1"', path, table])
    expect(await contentOf(path)).toEqual({ table: { kind: 'MBR', partitions: 1 }, fileSystems: [] })
    await runTool('mke2fs', ['-q', '-F', '-t', 'ext2', '-E', `offset=${MIB}`, path, '8M'])
    expect(await contentOf(path)).toEqual({
      table: { kind: 'MBR', partitions: 1, sectorSize: 512 },
      fileSystems: ['ext2'],
    })
  })

  it('nothing that is known: zeros, noise, a disk of one sector, a boot sector with code', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    const boot = Buffer.alloc(4 * MIB, 0x90)
    boot.writeUInt16LE(0xaa55, 510)
    for (const bytes of [Buffer.alloc(MIB), random.bytes(4 * MIB), random.bytes(512), random.bytes(1), boot]) {
      await writeFile(path, bytes)
      const content = await contentOf(path)
      expect(content).toEqual({ fileSystems: [] })
      expect(describeContent(content)).toBe('no file system or partition table that is known')
    }
  })
})
