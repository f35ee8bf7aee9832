import { mkdir, open, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openDevice } from '../../../node/disk/file-device.ts'
import { byteOffset } from '../../../protocol/units.ts'
import { Random } from '../../../tools/lab/random.ts'
import { attachLoop, mount, orSkip } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 * 1024
const random = new Random(1)

describe('a file as a disk', () => {
  it('reads and writes at any offset, up to an odd end', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    const content = random.bytes(3 * MIB + 77)
    await writeFile(path, content)
    const device = await openDevice(path, { writable: true })
    expect([device.size, device.kind, device.path]).toEqual([content.byteLength, 'file', path])
    const tail = new Uint8Array(100)
    await device.read(byteOffset(content.byteLength - 100), tail)
    expect(Buffer.compare(tail, content.subarray(-100))).toBe(0)
    await device.write(byteOffset(content.byteLength - 3), Uint8Array.of(1, 2, 3))
    await device.flush()
    await device.close()
    expect((await readFile(path)).subarray(-4)).toEqual(Buffer.of(content.at(-4)!, 1, 2, 3))
    expect((await stat(path)).size).toBe(content.byteLength)
  })

  it('says at which byte a disk that became shorter ends', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, random.bytes(MIB))
    const device = await openDevice(path, { writable: false })
    await truncate(path, 4096 + 10)
    await expect(device.read(byteOffset(4096), new Uint8Array(100))).rejects.toMatchObject({
      code: 'DISK_SHRUNK',
      message: `${path} ends at byte 4106: it has become shorter while it was used`,
      detail: { path, offset: 4106 },
    })
    await device.close()
  })

  it('never writes or reads beyond its end', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, random.bytes(1000))
    const device = await openDevice(path, { writable: true })
    await expect(device.write(byteOffset(999), new Uint8Array(2))).rejects.toThrow('bytes 999 to 1001')
    await expect(device.read(byteOffset(999), new Uint8Array(2))).rejects.toThrow('bytes 999 to 1001')
    await device.close()
    expect((await stat(path)).size).toBe(1000)
  })

  it('reports the byte of a write that the system refuses', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, random.bytes(8192))
    const device = await openDevice(path, { writable: false })
    await expect(device.write(byteOffset(512), new Uint8Array(512))).rejects.toMatchObject({
      code: 'DISK_IO',
      detail: { path, offset: 512 },
    })
    await device.close()
  })

  it('reports a file system without space for a sparse image', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=256k', 'none', directory)
    const path = join(directory, 'disk.img')
    await truncate(await created(path), 4 * MIB)
    const device = await openDevice(path, { writable: true })
    await expect(device.write(byteOffset(MIB), random.bytes(MIB))).rejects.toMatchObject({
      code: 'DISK_FULL',
      detail: { path, offset: MIB + 256 * 1024 },
    })
    await device.close()
  })
})

describe('what cannot be a disk', () => {
  it.each([
    ['a path that is not there', (d: string) => join(d, 'none'), 'DISK_MISSING'],
    ['a path through a file', (d: string) => join(d, 'file', 'none'), 'DISK_MISSING'],
    ['a dangling link', (d: string) => join(d, 'dangling'), 'DISK_MISSING'],
    ['a directory', (d: string) => d, 'DISK_NOT_A_DISK'],
    ['a character device', () => '/dev/null', 'DISK_NOT_A_DISK'],
    ['an empty file', (d: string) => join(d, 'empty'), 'DISK_EMPTY'],
  ])('%s', async (_, pathIn, code) => {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'file'), 'x')
    await writeFile(join(directory, 'empty'), '')
    await symlink(join(directory, 'gone'), join(directory, 'dangling'))
    const path = pathIn(directory)
    await expect(openDevice(path, { writable: true })).rejects.toMatchObject({ code, detail: { path } })
  })

  it('a file larger than an image can be', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=256k', 'none', directory)
    const path = join(directory, 'huge')
    await truncate(await created(path), 64 * 1024 ** 4 + 1)
    await expect(openDevice(path, { writable: false })).rejects.toMatchObject({
      code: 'DISK_TOO_LARGE',
      detail: { path },
    })
  })

  it('a named pipe, without waiting for its other end', async (context) => {
    const path = join(await temporaryDirectory(), 'pipe')
    await orSkip(context, 'mkfifo', [path])
    await expect(openDevice(path, { writable: false })).rejects.toMatchObject({ code: 'DISK_NOT_A_DISK' })
  })

  it('a file on a file system that is mounted read-only', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=256k', 'none', directory)
    const path = join(directory, 'disk.img')
    await writeFile(path, 'x')
    await orSkip(context, 'mount', ['-o', 'remount,ro', directory])
    await expect(openDevice(path, { writable: true })).rejects.toMatchObject({
      code: 'DISK_READ_ONLY',
      message: expect.stringContaining('mounted read-only'),
    })
  })

  it('a file of another user', async (context) => {
    if (process.geteuid?.() !== 0) context.skip('needs root, to become somebody else')
    const directory = await temporaryDirectory()
    const path = join(directory, 'disk.img')
    await writeFile(path, 'x', { mode: 0o600 })
    await orSkip(context, 'chmod', ['755', directory])
    process.seteuid!(65534)
    try {
      await expect(openDevice(path, { writable: true })).rejects.toMatchObject({
        code: 'DISK_UNREADABLE',
        message: `${path} cannot be read and written (EACCES)`,
      })
    } finally {
      process.seteuid!(0)
    }
  })
})

describe('a block device', () => {
  it('is read and written like a file, also through a link', async (context) => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'disk.img')
    const content = random.bytes(2 * MIB + 512)
    await writeFile(path, content)
    const loop = await attachLoop(path, context)
    await mkdir(join(directory, 'by-id'))
    const link = join(directory, 'by-id', 'disk')
    await symlink(loop, link)
    const device = await openDevice(link, { writable: true })
    expect([device.size, device.kind]).toEqual([content.byteLength, 'block'])
    const read = new Uint8Array(3000)
    await device.read(byteOffset(content.byteLength - 3000), read)
    expect(Buffer.compare(read, content.subarray(-3000))).toBe(0)
    await device.write(byteOffset(1_000_001), Uint8Array.of(9, 8, 7))
    await device.flush()
    await device.close()
    expect((await readFile(path)).subarray(1_000_001, 1_000_004)).toEqual(Buffer.of(9, 8, 7))
  })

  it('that lost written data fails every flush from then on', async (context) => {
    const directory = await temporaryDirectory()
    await mount(context, '-t', 'tmpfs', '-o', 'size=256k', 'none', directory)
    const path = join(directory, 'disk.img')
    await truncate(await created(path), 4 * MIB)
    const device = await openDevice(await attachLoop(path, context), { writable: true })
    // The write goes to the page cache; that the file below cannot grow is noticed when it is flushed.
    await device.write(byteOffset(0), random.bytes(MIB))
    await expect(device.flush()).rejects.toMatchObject({ code: expect.stringMatching(/^DISK_(IO|FULL)$/) })
    await expect(device.flush()).rejects.toMatchObject({ code: expect.stringMatching(/^DISK_(IO|FULL)$/) })
    await device.close()
  })

  it('that is write-protected is called so, before and after it was opened', async (context) => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, new Uint8Array(MIB))
    const loop = await attachLoop(path, context)
    const device = await openDevice(loop, { writable: true })
    await orSkip(context, 'blockdev', ['--setro', loop])
    const expected = { code: 'DISK_READ_ONLY', detail: { path: loop } }
    await expect(openDevice(loop, { writable: true })).rejects.toMatchObject(expected)
    await expect(device.write(byteOffset(0), new Uint8Array(512))).rejects.toMatchObject({ code: 'DISK_READ_ONLY' })
    await device.close()
    await (await openDevice(loop, { writable: false })).close()
    await orSkip(context, 'blockdev', ['--setrw', loop])
    await (await openDevice(loop, { writable: true })).close()
  })

  it('without a medium is empty', async (context) => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, new Uint8Array(4096))
    const loop = await attachLoop(path, context)
    // Another number of the same kind that nothing is attached to.
    const free = await orSkip(context, 'losetup', ['--find'])
    expect(free).not.toBe(loop)
    await expect(openDevice(free, { writable: false })).rejects.toMatchObject({ code: 'DISK_EMPTY' })
  })
})

async function created(path: string): Promise<string> {
  const file = await open(path, 'w')
  await file.close()
  return path
}
