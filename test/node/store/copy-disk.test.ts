import { open, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { copyDisk, keepCopy } from '../../../node/store/copy-disk.ts'
import { Random } from '../../../tools/lab/random.ts'
import { attachLoop, mount } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 * 1024
const random = new Random(71)
const never = { progress: () => undefined, signal: new AbortController().signal }

/** 12 MiB and a bit, of which 8 MiB are zeros. */
async function sparseDisk(path: string): Promise<Buffer> {
  const content = Buffer.concat([random.bytes(2 * MIB), Buffer.alloc(8 * MIB), random.bytes(2 * MIB + 512)])
  await writeFile(path, content)
  return content
}

describe('copyDisk', () => {
  it.for(['file', 'block device'] as const)(
    'copies a %s, zeros as holes, under a passing name',
    async (kind, context) => {
      const directory = await temporaryDirectory()
      const [source, to] = [join(directory, 'disk.img'), join(directory, 'copy.img')]
      const content = await sparseDisk(source)
      await writeFile(to, 'the copy of before')
      // What a crash has left is longer than the disk, and is in the way.
      await writeFile(`${to}.part`, random.bytes(14 * MIB))
      const from = kind === 'file' ? source : await attachLoop(source, context)
      const copy = await copyDisk(from, to, never)
      expect(await readFile(to, 'utf8')).toBe('the copy of before')
      expect(await keepCopy(copy)).toBe(to)
      expect(Buffer.compare(await readFile(to), content)).toBe(0)
      expect((await readdir(directory)).sort()).toEqual(['copy.img', 'disk.img'])
      const { blocks, size } = await stat(to)
      expect(size).toBe(content.byteLength)
      if (kind === 'block device') expect(blocks * 512).toBeLessThan(6 * MIB)
    },
  )

  it('leaves nothing when it is interrupted', async (context) => {
    const directory = await temporaryDirectory()
    const source = join(directory, 'disk.img')
    await sparseDisk(source)
    const loop = await attachLoop(source, context)
    const stop = new AbortController()
    const copying = copyDisk(loop, join(directory, 'copy.img'), { progress: () => stop.abort(), signal: stop.signal })
    await expect(copying).rejects.toMatchObject({ code: 'INTERRUPTED' })
    expect(await readdir(directory)).toEqual(['disk.img'])
  })

  it('says before it begins that there is no room, in bytes', async (context) => {
    const directory = await temporaryDirectory()
    const source = join(directory, 'disk.img')
    await sparseDisk(source)
    const small = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=1m', 'none', small)
    const copying = copyDisk(source, join(small, 'copy.img'), never)
    await expect(copying).rejects.toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringMatching(/takes \d+ bytes, and the file system of \S+ has 1048576 free/),
    })
    expect(await readdir(small)).toEqual([])
  })

  it('takes the holes of a file for no bytes that need room', async (context) => {
    const source = join(await temporaryDirectory(), 'disk.img')
    const file = await open(source, 'w')
    await file.truncate(64 * MIB)
    await file.write(random.bytes(65_536), 0, 65_536, 32 * MIB)
    await file.close()
    const small = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=1m', 'none', small)
    const { path } = await copyDisk(source, join(small, 'copy.img'), never)
    expect(Buffer.compare(await readFile(path), await readFile(source))).toBe(0)
  })
})
