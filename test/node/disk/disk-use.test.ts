import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { link, mkdir, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import { deviceNumber } from '../../../node/disk/device-number.ts'
import { assertUnused } from '../../../node/disk/disk-use.ts'
import { openDevice } from '../../../node/disk/file-device.ts'
import { byteOffset } from '../../../protocol/units.ts'
import { appears, attachLoop, mount, orSkip, swapOn } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 * 1024
/** A device node that hardly anybody has attached something to. */
const FREE_DEVICE = '/dev/loop7'
const check = async (path: string): Promise<void> => void (await assertUnused(path, { to: 'write', force: false }))
const checkRead = async (path: string): Promise<void> => void (await assertUnused(path, { to: 'read', force: false }))

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
      await assertUnused(path, { to: 'write', force: true })
    }
  })

  it('may be read while it is mounted read-only, but not written', async (context) => {
    const image = await imageFile(8 * MIB)
    const loop = await attachLoop(image, context)
    await orSkip(context, 'mkfs.ext4', ['-q', loop])
    const point = await temporaryDirectory()
    await mount(context, '-o', 'ro', loop, point)
    for (const path of [loop, image]) {
      await checkRead(path)
      await expect(check(path)).rejects.toMatchObject({
        code: 'DISK_MOUNTED',
        message: `${path} is mounted read-only on ${point}; what is mounted would go on with the old content`,
      })
    }
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
      const message = expect.stringMatching(
        /mounted read-write on .*\/m in the mount namespace of sleep \(process \d+\)$/,
      )
      for (const path of [loop, image])
        await expect(check(path)).rejects.toMatchObject({ code: 'DISK_MOUNTED', message })
      // Where the other's /proc cannot be read, the kernel still says that the device is taken.
      const proc = await temporaryDirectory()
      await mkdir(join(proc, 'self'))
      await writeFile(join(proc, 'self/mountinfo'), '')
      const blind = assertUnused(loop, { to: 'write', force: false, kernel: { proc, sys: '/sys' } })
      await expect(blind).rejects.toMatchObject({ code: 'DISK_IN_USE', message: /is in use by the kernel/ })
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
      code: 'DISK_IN_USE',
      message: `${image} is in use as swap space (\`swapoff ${image}\` ends that)`,
    })
  })

  it('is refused on a device, also as the file below it', async (context) => {
    const image = await imageFile(8 * MIB)
    const loop = await attachLoop(image, context)
    await swapOn(context, loop)
    for (const path of [loop, image]) {
      await expect(check(path)).rejects.toMatchObject({
        code: 'DISK_IN_USE',
        message: `${path} is in use as swap space (\`swapoff ${loop}\` ends that)`,
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

  it('is refused when a loop device beside it, over the same bytes of the same file, is mounted', async (context) => {
    const image = await imageFile(32 * MIB)
    const beside = await attachLoop(image, context)
    const loop = await attachLoop(image, context)
    await orSkip(context, 'mkfs.ext4', ['-q', beside])
    await check(loop)
    await mount(context, beside, await temporaryDirectory())
    await expect(check(loop)).rejects.toMatchObject({ code: 'DISK_MOUNTED' })
  })

  it('shows its new content through a loop device that nobody has open; who has it open is named', async (context) => {
    const image = await imageFile(MIB)
    const loop = await attachLoop(image, context)
    const first = async (): Promise<string> => (await orSkip(context, 'head', ['-c', '3', loop])).replaceAll('\0', '')
    expect(await first()).toBe('')
    await check(image)
    const device = await openDevice(image, { writable: true })
    await device.write(byteOffset(0), Buffer.from('new'))
    await device.flush()
    await device.close()
    expect(await first()).toBe('new')
    const reader = await holdOpen(loop, '<')
    const message = `${image} is in use: sleep (process ${reader}) has ${loop} open, which shows it`
    await expect(check(image)).rejects.toMatchObject({ code: 'DISK_IN_USE', message })
    // Reading in place is nobody's trouble.
    await checkRead(image)
    await check(loop)
  })

  // Few test machines have device mapper: what the kernel shows of it is made here around a real, unused device.
  const holder = 'is in use by the LVM volume vg-home (dm-0); `lvchange -an` or `vgchange -an` ends that'
  it.skipIf(!existsSync(FREE_DEVICE)).each([
    ['mounted read-write', '252:0 / /home rw - ext4 /dev/mapper/home rw', 'is mounted read-write on /home', 'write'],
    ['mounted read-only', '252:0 / /home rw - ext4 /dev/mapper/home ro', undefined, 'read'],
    ['another device is mounted', '253:0 / /home rw - ext4 /dev/mapper/else rw', holder, 'write'],
    ['another device is mounted, read', '253:0 / /home rw - ext4 /dev/mapper/else rw', holder, 'read'],
  ] as const)('a holder of one of its partitions: %s', async (_, mounted, expected, to) => {
    const { path, kernel } = await fakeKernel(`30 1 ${mounted}\n`, 'LVM-abc')
    const checked = assertUnused(path, { to, force: false, kernel })
    if (expected === undefined) await checked
    else await expect(checked).rejects.toMatchObject({ message: `${path} ${expected}` })
  })

  it.skipIf(!existsSync(FREE_DEVICE)).each([
    ['CRYPT-LUKS2-0-x', 'is in use by the encrypted volume vg-home (dm-0); `cryptsetup close vg-home` ends that'],
    ['', 'is in use by the device-mapper device vg-home (dm-0); `dmsetup remove vg-home` ends that'],
    [undefined, 'is in use by the RAID md0; `mdadm --stop /dev/md0` ends that'],
  ])('a holder of another kind is named with the command that ends it: %s', async (uuid, expected) => {
    const { path, kernel } = await fakeKernel('', uuid)
    const checked = assertUnused(path, { to: 'write', force: false, kernel })
    await expect(checked).rejects.toMatchObject({ code: 'DISK_IN_USE', message: `${path} ${expected}` })
  })

  it('is refused below a real device-mapper device', async (context) => {
    const loop = await attachLoop(await imageFile(8 * MIB), context)
    const name = `mesh-test-${process.pid}`
    await orSkip(context, 'dmsetup', ['create', '--noudevsync', name, '--table', `0 2048 linear ${loop} 0`])
    onTestFinished(() => void execFileSync('dmsetup', ['remove', '--noudevsync', name]))
    await expect(check(loop)).rejects.toMatchObject({
      code: 'DISK_IN_USE',
      message: expect.stringMatching(`device-mapper device ${name} \\(dm-\\d+\\); .dmsetup remove ${name}. ends that`),
    })
  })
})

describe('a disk that a program has open', () => {
  it('is refused if that program may write, by any name, unless it is one of ours', async () => {
    const image = await imageFile(MIB)
    const other = join(await temporaryDirectory(), 'other-name.img')
    await link(image, other)
    const own = join(await temporaryDirectory(), 'LOCK')
    await writeFile(own, '')
    const writer = await holdOpen(other, '<>')
    for (const path of [image, other])
      for (const look of [check, checkRead])
        await expect(look(path)).rejects.toMatchObject({
          code: 'DISK_IN_USE',
          message: `${path} is in use: sleep (process ${writer}) has it open for writing`,
        })
    await expect(assertUnused(image, { to: 'write', force: false, ours: [own] })).rejects.toThrow('open for writing')
    await assertUnused(image, { to: 'write', force: true })
  })

  it('is free for the program that has one of our files open', async () => {
    const image = await imageFile(MIB)
    const own = join(await temporaryDirectory(), 'LOCK')
    await writeFile(own, '')
    await holdOpen(image, '<>', own)
    expect(await assertUnused(image, { to: 'write', force: false, ours: [own] })).toEqual({ byOurs: true })
  })

  it('is free for it also where it holds the device, as a monitor does', async (context) => {
    const loop = await attachLoop(await imageFile(MIB), context)
    const own = join(await temporaryDirectory(), 'LOCK')
    await writeFile(own, '')
    const script = `const { openSync, constants } = require('node:fs'); openSync('${own}', 'r')
      openSync('${loop}', constants.O_RDWR | constants.O_EXCL); console.log('ready'); setInterval(() => undefined, 1000)`
    const holder = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    endWithTest(holder)
    await once(holder.stdout, 'data')
    expect(await assertUnused(loop, { to: 'write', force: false, ours: [own] })).toEqual({ byOurs: true })
    await expect(check(loop)).rejects.toMatchObject({
      code: 'DISK_IN_USE',
      message: /^\S+ is in use: node \(process \d+\) has it open for writing$/,
    })
  })

  it('is free if that program only reads, or is gone soon', async () => {
    const image = await imageFile(MIB)
    await holdOpen(image, '<')
    await check(image)
    const writer = await holdOpen(image, '<>')
    const checked = check(image)
    process.kill(writer, 'SIGKILL')
    await checked
  })

  it('is refused as a partition when a program writes to its disk', async (context) => {
    const loop = await attachLoop(await imageFile(32 * MIB), context, { partitions: true })
    await orSkip(context, 'addpart', [loop, '1', '2048', '16384'])
    expect(await appears(`${loop}p1`)).toBe(true)
    await check(`${loop}p1`)
    await holdOpen(loop, '<>')
    await expect(check(`${loop}p1`)).rejects.toMatchObject({ code: 'DISK_IN_USE', message: /open for writing/ })
  })
})

describe('a disk that QEMU has locked', () => {
  it('is refused, also if QEMU only reads it, and where the process of QEMU cannot be seen', async (context) => {
    await orSkip(context, 'qemu-system-x86_64', ['--version'])
    for (const [flags, how] of [
      ['', 'has it open for writing'],
      [',readonly=on', 'has locked it, as a virtual machine does (QEMU)'],
    ]) {
      const image = await imageFile(MIB)
      const args = [
        '-display',
        'none',
        '-monitor',
        'none',
        '-S',
        '-drive',
        `file=${image},format=raw,if=virtio${flags}`,
      ]
      const qemu = spawn('qemu-system-x86_64', args, { stdio: 'ignore' })
      endWithTest(qemu)
      for (let tries = 400; tries > 0 && !(await isLocked(image)); tries--) await sleep(25)
      const name = `qemu-system-x86_64 (process ${qemu.pid})`
      await expect(check(image)).rejects.toMatchObject({
        code: 'DISK_IN_USE',
        message: `${image} is in use: ${name} ${how}`,
      })
      const proc = await temporaryDirectory()
      for (const file of ['self', 'locks', 'swaps']) await symlink(`/proc/${file}`, join(proc, file))
      const blind = assertUnused(image, { to: 'write', force: false, kernel: { proc, sys: '/sys' } })
      await expect(blind).rejects.toMatchObject({
        code: 'DISK_IN_USE',
        message: /a virtual machine \(QEMU\) has locked it/,
      })
    }
  })
})

describe('a system without /proc', () => {
  it('is told what is missing, unless forced', async () => {
    const image = await imageFile(MIB)
    const kernel = { proc: join(await temporaryDirectory(), 'none'), sys: '/sys' }
    await expect(assertUnused(image, { to: 'write', force: false, kernel })).rejects.toMatchObject({
      code: 'KERNEL_FILES_MISSING',
      message: `/proc is not mounted here, so nothing tells whether somebody uses the disk (${image})`,
    })
    await assertUnused(image, { to: 'write', force: true, kernel })
  })
})

describe('a device that is opened alone', () => {
  it('cannot be mounted meanwhile', async (context) => {
    const loop = await attachLoop(await imageFile(8 * MIB), context)
    await orSkip(context, 'mkfs.ext4', ['-q', loop])
    const device = await openDevice(loop, { writable: true, alone: true })
    await expect(run('mount', [loop, await temporaryDirectory()])).rejects.toThrow(
      'already mounted or mount point busy',
    )
    await expect(openDevice(loop, { writable: true, alone: true })).rejects.toMatchObject({ code: 'DISK_IN_USE' })
    const held = { to: 'write', force: false, held: true } as const
    await assertUnused(loop, held)
    const writer = await holdOpen(loop, '<>')
    await expect(assertUnused(loop, held)).rejects.toMatchObject({ code: 'DISK_IN_USE' })
    process.kill(writer, 'SIGKILL')
    await assertUnused(loop, held)
    await device.close()
    await mount(context, loop, await temporaryDirectory())
  })
})

const run = promisify(execFile)

/** Starts a program that has a file open, as a shell redirects it, until the test ends; `also`: another file that it has open. */
async function holdOpen(path: string, how: '<' | '<>', also?: string): Promise<number> {
  const script = `exec 7${how}'${path}' ${also === undefined ? '' : `8<'${also}'`} && echo ready && exec sleep 1000`
  const child = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  endWithTest(child)
  await once(child.stdout, 'data')
  for (let tries = 100; tries > 0; tries--) {
    if ((await readFile(`/proc/${child.pid}/comm`, 'utf8')) === 'sleep\n') return child.pid!
    await sleep(10)
  }
  throw new Error('sleep was not started')
}

function endWithTest(child: ChildProcess): void {
  const ended = once(child, 'exit')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended
  })
}

async function isLocked(path: string): Promise<boolean> {
  const { ino } = await stat(path)
  return (await readFile('/proc/locks', 'utf8')).split('\n').some((line) => line.includes(`:${ino} 201 201`))
}

async function imageFile(size: number): Promise<string> {
  const path = join(await temporaryDirectory(), 'disk.img')
  await writeFile(path, '')
  await truncate(path, size)
  return path
}

/** /proc and /sys of a machine whose disk has one partition, which device 252:0 stands on: of device mapper with this UUID, or a RAID. */
async function fakeKernel(
  mountinfo: string,
  uuid: string | undefined,
): Promise<{ path: string; kernel: { proc: string; sys: string } }> {
  const path = FREE_DEVICE
  const number = deviceNumber((await stat(path)).rdev)
  const [proc, sys] = [await temporaryDirectory(), await temporaryDirectory()]
  await mkdir(join(proc, 'self'))
  await writeFile(join(proc, 'self/mountinfo'), mountinfo)
  const disk = join(sys, 'devices', basename(path))
  const partition = join(disk, `${basename(path)}p1`)
  const name = uuid === undefined ? 'md0' : 'dm-0'
  const mapped = join(sys, 'devices', name)
  await mkdir(join(partition, 'holders'), { recursive: true })
  await mkdir(join(mapped, 'holders'), { recursive: true })
  await mkdir(join(mapped, uuid === undefined ? 'md' : 'dm'))
  if (uuid !== undefined) {
    await writeFile(join(mapped, 'dm/name'), 'vg-home\n')
    await writeFile(join(mapped, 'dm/uuid'), `${uuid}\n`)
  }
  await writeFile(join(disk, 'dev'), `${number}\n`)
  await writeFile(join(partition, 'dev'), '259:7\n')
  await writeFile(join(mapped, 'dev'), '252:0\n')
  await symlink(mapped, join(partition, 'holders', name))
  await mkdir(join(sys, 'dev/block'), { recursive: true })
  await symlink(disk, join(sys, 'dev/block', number))
  await symlink(partition, join(sys, 'dev/block/259:7'))
  await symlink(mapped, join(sys, 'dev/block/252:0'))
  return { path, kernel: { proc, sys } }
}
