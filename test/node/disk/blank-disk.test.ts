import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { contentOf } from '../../../node/disk/blank-disk.ts'
import { openDevice } from '../../../node/disk/file-device.ts'
import { runTool } from '../../../tools/lab/run-tool.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 * 1024

async function disk(size: number, at?: number): Promise<string> {
  const path = join(await temporaryDirectory(), 'disk.img')
  await using file = await open(path, 'w')
  await file.truncate(size)
  if (at !== undefined) await file.write(Buffer.from([1]), 0, 1, at)
  return path
}

async function look(path: string): Promise<string | undefined> {
  const device = await openDevice(path, { writable: false })
  return contentOf(device).finally(() => device.close())
}

describe('what a disk holds that is to be given to a machine', () => {
  it.each([4096, 10_000, MIB, 3 * MIB + 512, 64 * MIB])('is nothing on a disk of %i zeros', async (size) => {
    expect(await look(await disk(size))).toBeUndefined()
  })

  it.each([
    [64 * MIB, 0],
    [64 * MIB, MIB - 1],
    [64 * MIB, 64 * MIB - 1],
    [64 * MIB, 63 * MIB],
    [64 * MIB, 32 * MIB + 100],
    [4096, 4095],
    [10_000, 5000],
  ])('is something of unknown kind on a disk of %i bytes with one at %i', async (size, at) => {
    expect(await look(await disk(size, at))).toBe('data of a kind that is not known')
  })

  it('is a file system by its name', async () => {
    const path = await disk(8 * MIB)
    await runTool('mke2fs', ['-q', '-F', '-t', 'ext4', path])
    expect(await look(path)).toBe('ext4')
  })
})
