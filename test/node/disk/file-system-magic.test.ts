import { readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { fileSystemOf, MAGIC_BYTES, smallestPiece } from '../../../node/disk/file-system-magic.ts'
import { runTool } from '../../../tools/lab/run-tool.ts'
import { orSkip } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

describe('the smallest piece of a file system', () => {
  it.for([
    [['mke2fs', '-q', '-F', '-t', 'ext4', '-b', '1024'], 'ext4', 1024],
    [['mke2fs', '-q', '-F', '-t', 'ext3', '-b', '4096'], 'ext3', 4096],
    [['mkfs.vfat'], 'vfat', 512],
    [['mkfs.vfat', '-S', '4096'], 'vfat', 4096],
  ] as const)('is what %o makes', async ([[tool, ...args], name, bytes], context) => {
    await orSkip(context, 'which', [tool])
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, '')
    await truncate(path, 64 * 1024 ** 2)
    await runTool(tool, [...args, path])
    const head = (await readFile(path)).subarray(0, MAGIC_BYTES)
    expect([fileSystemOf(head), smallestPiece(head)]).toEqual([name, bytes])
  })

  it('of NTFS and XFS is in their first sector, and others fit every disk', () => {
    const head = Buffer.alloc(MAGIC_BYTES)
    expect(smallestPiece(head)).toBeUndefined()
    head.write('NTFS    ', 3)
    head.writeUInt16LE(512, 11)
    expect(smallestPiece(head)).toBe(512)
    head.write('XFSB', 0)
    head.writeUInt16BE(4096, 102)
    expect(smallestPiece(head)).toBe(4096)
    head.write('LUKS\xba\xbe', 'latin1')
    expect(smallestPiece(head)).toBeUndefined()
  })
})
