import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { link, mkdir, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { deviceNumber } from '../../../node/disk/device-number.ts'
import { assertNotMounted } from '../../../node/disk/mounts.ts'
import { appears, attachLoop, mount, orSkip, swapOn } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 * 1024
/** A device node that hardly anybody has attached something to. */
const FREE_DEVICE = '/dev/loop7'
const check = (path: string): Promise<void> => assertNotMounted(path, { force: false })

describe('a disk that nothing uses', () => {
  it('may be a file, a device, or a file that is attached and not mounted', async (context) => {
    const image = await imageFile(8 * MIB)
    await check(image)
    const loop = await attachLoop(image, context)
    await check(image)
    await check(loop)
  })

  it('must be there', async () => {
    await expect(check(join(await temporaryDirectory(), 'none'))).rejects.toMatchObject({ code: 'DISK_MISSING' })
  })
})

describe('a mounted disk', () => {
  it('is refused, as a device and as the file below it, by any name, unless forced', async (context) => {
    const image = await imageFile(8 * MIB)
    const loop = await attachLoop(image, context)
    await orSkip(context, 'mkfs.ext4', ['-q', loop])
    const point = join(await temporaryDirectory(), 'with a blank')
    await mkdir(point)
    await mount(context, loop, point)
    const other = join(await temporaryDirectory(), 'other-name.img')
    await link(image, other)
    for (const path of [loop, image, other]) {
      await expect(check(path)).rejects.toMatchObject({
        code: 'DISK_MOUNTED',
        message: `${path} is mounted read-write on ${point}`,
      })
      await assertNotMounted(path, { force: true })
    }
  })

  it('is allowed read-only', async (context) => {
    const image = await imageFile(8 * MIB)
    const loop = await attachLoop(image, context)
    await orSkip(context, 'mkfs.ext4', ['-q', loop])
    await mount(context, '-o', 'ro', loop, await temporaryDirectory())
    await check(loop)
    await check(image)
  })

  it('is refused when only one view of it is read-only', async (context) => {
    const image = await imageFile(8 * MIB)
    const loop = await attachLoop(image, context)
    await orSkip(context, 'mkfs.ext4', ['-q', loop])
    const point = await temporaryDirectory()
    await mount(context, loop, point)
    await orSkip(context, 'mount', ['-o', 'remount,bind,ro', point])
    await expect(check(loop)).rejects.toMatchObject({ code: 'DISK_MOUNTED' })
  })

  it('is refused when its file system has device numbers of its own', async (context) => {
    const image = await imageFile(128 * MIB)
    const loop = await attachLoop(image, context)
    await orSkip(context, 'mkfs.btrfs', ['-q', loop])
    await mount(context, loop, await temporaryDirectory())
    await expect(check(loop)).rejects.toMatchObject({ code: 'DISK_MOUNTED' })
  })

  it('is refused when it is mounted where this process cannot see it', async (context) => {
    const image = await imageFile(8 * MIB)
    const loop = await attachLoop(image, context)
    await orSkip(context, 'mkfs.ext4', ['-q', loop])
    const point = await temporaryDirectory()
    const pidFile = join(point, 'pid')
    const script = `mkdir '${point}/m' && mount '${loop}' '${point}/m' && echo $$ > '${pidFile}' && exec sleep 60`
    await orSkip(context, 'unshare', ['--mount', '--fork', 'true'])
    const hidden = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], { stdio: 'ignore' })
    const ended = new Promise((resolve) => hidden.once('exit', resolve))
    try {
      expect(await appears(pidFile)).toBe(true)
      await expect(check(loop)).rejects.toMatchObject({ code: 'DISK_MOUNTED', message: /is in use by the kernel/ })
      await expect(check(image)).rejects.toMatchObject({ code: 'DISK_MOUNTED' })
    } finally {
      hidden.kill('SIGKILL')
      await ended
    }
  })
})

describe('a disk with partitions', () => {
  it('is refused as a whole when one is mounted, but not the others', async (context) => {
    const image = await imageFile(32 * MIB)
    const loop = await attachLoop(image, context, { partitions: true })
    // Told to the kernel directly, as not every kernel reads partition tables. In sectors: 1 MiB and 10 MiB, 8 MiB each.
    await orSkip(context, 'addpart', [loop, '1', '2048', '16384'])
    await orSkip(context, 'addpart', [loop, '2', '20480', '16384'])
    expect(await appears(`${loop}p2`)).toBe(true)
    await orSkip(context, 'mkfs.ext4', ['-q', `${loop}p1`])
    await check(loop)
    const point = await temporaryDirectory()
    await mount(context, `${loop}p1`, point)
    for (const path of [loop, image, `${loop}p1`]) {
      await expect(check(path)).rejects.toMatchObject({
        code: 'DISK_MOUNTED',
        message: `${path} is mounted read-write on ${point}`,
      })
    }
    await check(`${loop}p2`)
  })
})

describe('swap space', () => {
  it('is refused in a file that is swapped to', async (context) => {
    const image = join(await temporaryDirectory(), 'swap.img')
    // Swap files have no holes.
    await writeFile(image, new Uint8Array(8 * MIB), { mode: 0o600 })
    await swapOn(context, image)
    await expect(check(image)).rejects.toMatchObject({
      code: 'DISK_MOUNTED',
      message: `${image} is in use as swap space`,
    })
  })

  it('is refused on a device, also as the file below it', async (context) => {
    const image = await imageFile(8 * MIB)
    const loop = await attachLoop(image, context)
    await swapOn(context, loop)
    for (const path of [loop, image]) {
      await expect(check(path)).rejects.toMatchObject({
        code: 'DISK_MOUNTED',
        message: `${path} is in use as swap space`,
      })
    }
  })
})

describe('a disk below another device', () => {
  it('is refused when a loop device over it is mounted', async (context) => {
    const image = await imageFile(8 * MIB)
    const lower = await attachLoop(image, context)
    const upper = await attachLoop(lower, context)
    await orSkip(context, 'mkfs.ext4', ['-q', upper])
    await mount(context, upper, await temporaryDirectory())
    await expect(check(lower)).rejects.toMatchObject({ code: 'DISK_MOUNTED' })
    await expect(check(image)).rejects.toMatchObject({ code: 'DISK_MOUNTED' })
  })

  // Few test machines have device mapper: what the kernel shows of it is made here around a real, unused device.
  it.skipIf(!existsSync(FREE_DEVICE)).each([
    ['mounted read-write', '252:0 / /home rw - ext4 /dev/mapper/home rw', 'is mounted read-write on /home'],
    ['mounted read-only', '252:0 / /home rw - ext4 /dev/mapper/home ro', undefined],
    ['another device is mounted', '253:0 / /home rw - ext4 /dev/mapper/else rw', undefined],
  ])('a holder of one of its partitions: %s', async (_, mounted, expected) => {
    const { path, kernel } = await fakeKernel(`30 1 ${mounted}\n`)
    const checked = assertNotMounted(path, { force: false, kernel })
    if (expected === undefined) await checked
    else await expect(checked).rejects.toMatchObject({ code: 'DISK_MOUNTED', message: `${path} ${expected}` })
  })
})

async function imageFile(size: number): Promise<string> {
  const path = join(await temporaryDirectory(), 'disk.img')
  await writeFile(path, '')
  await truncate(path, size)
  return path
}

/** /proc and /sys of a machine whose disk has one partition, which device mapper device 252:0 stands on. */
async function fakeKernel(mountinfo: string): Promise<{ path: string; kernel: { proc: string; sys: string } }> {
  const path = FREE_DEVICE
  const number = deviceNumber((await stat(path)).rdev)
  const [proc, sys] = [await temporaryDirectory(), await temporaryDirectory()]
  await mkdir(join(proc, 'self'))
  await writeFile(join(proc, 'self/mountinfo'), mountinfo)
  const disk = join(sys, 'devices', basename(path))
  const partition = join(disk, `${basename(path)}p1`)
  const mapped = join(sys, 'devices/dm-0')
  await mkdir(join(partition, 'holders'), { recursive: true })
  await mkdir(join(mapped, 'holders'), { recursive: true })
  await writeFile(join(disk, 'dev'), `${number}\n`)
  await writeFile(join(partition, 'dev'), '259:7\n')
  await writeFile(join(mapped, 'dev'), '252:0\n')
  await symlink(mapped, join(partition, 'holders/dm-0'))
  await mkdir(join(sys, 'dev/block'), { recursive: true })
  await symlink(disk, join(sys, 'dev/block', number))
  await symlink(partition, join(sys, 'dev/block/259:7'))
  await symlink(mapped, join(sys, 'dev/block/252:0'))
  return { path, kernel: { proc, sys } }
}
