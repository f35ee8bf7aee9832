import { execFile } from 'node:child_process'
import { access, mkdir, rm, rmdir, stat, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { onTestFinished, type TestContext } from 'vitest'
import { deviceNumber } from '../../node/disk/device-number.ts'

const run = promisify(execFile)

/**
 * Attaches a loop device over a file until the test ends; skips the test, saying why, where that is not possible.
 * With `partitions` the kernel reads the partition table; `sectorBytes`: logical sectors, 512 unless told otherwise.
 */
export async function attachLoop(
  file: string,
  context: TestContext,
  options: { partitions?: boolean; sectorBytes?: number } = {},
): Promise<string> {
  const { partitions = false, sectorBytes } = options
  const flags = [
    ...(partitions ? ['--partscan'] : []),
    ...(sectorBytes === undefined ? [] : ['--sector-size', String(sectorBytes)]),
  ]
  const device = await orSkip(context, 'losetup', ['--find', '--show', ...flags, file])
  onTestFinished(async () => {
    await run('losetup', ['--detach', device])
  })
  return device
}

/** Mounts until the test ends; skips the test, saying why, where that is not possible. */
export async function mount(context: TestContext, ...args: string[]): Promise<void> {
  await orSkip(context, 'mount', args)
  const point = args.at(-1)!
  onTestFinished(async () => {
    await run('umount', [point])
  })
}

/** Uses a device as swap space until the test ends; skips the test, saying why, where that is not possible. */
export async function swapOn(context: TestContext, device: string): Promise<void> {
  await orSkip(context, 'mkswap', [device])
  await orSkip(context, 'swapon', [device])
  onTestFinished(async () => {
    await run('swapoff', [device])
  })
}

/** Runs a tool of the system; skips the test, saying why, if it fails or is not there. Returns what it printed. */
export async function orSkip(context: TestContext, command: string, args: readonly string[]): Promise<string> {
  try {
    return (await run(command, args)).stdout.trim()
  } catch (error) {
    const reason = `not possible here: ${command} ${args.join(' ')}: ${(error as Error).message.trim()}`
    console.log(`skipped "${context.task.name}": ${reason}`)
    return context.skip(reason)
  }
}

/** Whether there is such a path; device nodes of partitions appear a moment after the kernel has found them. */
export async function appears(path: string, tries = 50): Promise<boolean> {
  for (; tries > 0; tries--) {
    const there = await access(path).then(
      () => true,
      () => false,
    )
    if (there) return true
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return false
}

/**
 * Writes what udev's database says of a block device (`ID_SERIAL=DISK_1`), as its daemon would, until the test ends. This process is part of
 * serial numbers, so that devices of other tests, or of one that was killed, are other disks.
 */
export async function tellUdev(device: string, properties: readonly string[]): Promise<void> {
  const place = `/run/udev/data/b${deviceNumber((await stat(device)).rdev)}`
  const text = properties.map((line) => `E:${line}${line.startsWith('ID_SERIAL=') ? `-${process.pid}` : ''}\n`).join('')
  for (let tries = 3; ; tries--) {
    await mkdir('/run/udev/data', { recursive: true })
    // Another test may just have removed the folder.
    const failure = await writeFile(place, text).catch((error: unknown) => error)
    if (failure === undefined) break
    if (tries === 0) throw failure
  }
  onTestFinished(async () => {
    await rm(place, { force: true })
    // Where there is no udev the folders go with the last file.
    for (const folder of ['/run/udev/data', '/run/udev']) await rmdir(folder).catch(() => undefined)
  })
}
