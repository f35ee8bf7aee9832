import { mkdir, readFile, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { errnoOf, isMeshError, MeshError } from '../../../protocol/errors.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { type DiskFacts, diskFacts } from '../../disk/disk-identity.ts'
import { storageError, writeFileAtomic } from '../../state/atomic-file.ts'
import { lockDirectory } from '../../state/directory-lock.ts'
import type { ChangeTracker } from '../../writelog/change-tracker.ts'
import type { EraOrigin } from '../../writelog/dm-era.ts'
import { DurableBitmap, type DurableBitmapOptions, logFileSize } from '../../writelog/durable-bitmap.ts'
import { assertPlaceFree, isNbdAddress, openLogStorage } from '../../writelog/log-storage.ts'
import { ScanLog } from '../../writelog/scan-log.ts'
import { TrackedLog } from '../../writelog/tracked-log.ts'
import type { WriteLog } from '../../writelog/write-log.ts'

/** How the writes to this machine's disk are logged: `write-log/config.json` in the state directory. */
export type LogConfig = {
  /** Where the bitmap is kept: a path or an `nbd://` address. */
  readonly storage: string
} & (
  | { readonly source: 'nbd' }
  /** A dm-era device `/dev/mapper/NAME` over the disk, whose metadata is kept on the device or loop file `metadata`. */
  | ({ readonly source: 'dm-era'; readonly name: string; readonly metadata: string } & EraOrigin)
  /**
   * A qcow2 file whose raw external data file is the disk; it holds the persistent dirty bitmaps. `live`: address of an
   * NBD export by which a running machine publishes them.
   */
  | { readonly source: 'qemu'; readonly image: string; readonly live?: string }
)

/** Faults of the place where a log is kept with which a restore goes on without it. */
const PLACE_MISSING = [
  'DISK_MISSING',
  'DISK_UNREADABLE',
  'DISK_TOO_SMALL',
  'NBD_UNREACHABLE',
  'NBD_UNSUITABLE',
  'NBD_PROTOCOL',
  'NBD_ADDRESS_INVALID',
  'REQUEST_TIMEOUT',
] as const

/** The bitmap's own place, unless the configuration names another one. */
export function defaultLogStorage(stateDir: string): string {
  return join(stateDir, 'write-log', 'bitmap')
}

/** A place as it was given on the command line, so that it is found from everywhere. */
export function logPlace(where: string): string {
  return isNbdAddress(where) ? where : resolve(where)
}

/** Undefined if no monitor was ever set up for this machine. Errors: STATE_CORRUPT. */
export async function readLogConfig(stateDir: string): Promise<LogConfig | undefined> {
  const path = join(stateDir, 'write-log', 'config.json')
  try {
    return JSON.parse(await readFile(path, 'utf8')) as LogConfig
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    if (error instanceof SyntaxError) throw new MeshError('STATE_CORRUPT', `${path} cannot be read`, { cause: error })
    throw storageError(error, path)
  }
}

/** Errors: DISK_IN_USE while a virtual machine uses an image that is given up. */
export async function writeLogConfig(stateDir: string, config: LogConfig): Promise<void> {
  const before = await readLogConfig(stateDir)
  if (before?.source === 'qemu' && !(config.source === 'qemu' && config.image === before.image)) await giveUp(before)
  const directory = join(stateDir, 'write-log')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await writeFileAtomic(join(directory, 'config.json'), `${JSON.stringify(config)}\n`)
}

/**
 * No monitor is kept for this machine any more: its log is removed, and every restore scans.
 * Errors: STATE_IN_USE, DISK_IN_USE.
 */
export async function removeLog(stateDir: string): Promise<void> {
  const directory = join(stateDir, 'write-log')
  const release = await lockLog(stateDir)
  try {
    const before = await readLogConfig(stateDir)
    if (before?.source === 'qemu') await giveUp(before)
    await rm(join(directory, 'config.json'), { force: true })
  } finally {
    await release()
  }
  await rm(directory, { recursive: true, force: true })
}

/** Restores make the image anew as long as they know of it; without that a machine could read other blocks from it. */
async function giveUp({ image }: Extract<LogConfig, { source: 'qemu' }>): Promise<void> {
  const { removeImage } = await import('../../writelog/qemu-bitmap.ts')
  await removeImage(image)
}

/** Only one process at a time may mark or clear. Errors: STATE_IN_USE. */
export function lockLog(stateDir: string): Promise<() => Promise<void>> {
  return lockDirectory(join(stateDir, 'write-log', 'lock'), `the write log in ${stateDir}`)
}

/**
 * The tracker that a configuration names, or undefined if our own monitor marks. `disk`: path of the managed disk.
 * `running`: only to look at it, while a virtual machine may be running; otherwise that is an error when it is asked.
 */
export async function openTracker(
  config: LogConfig,
  disk: string,
  options: { running?: boolean } = {},
): Promise<ChangeTracker | undefined> {
  switch (config.source) {
    case 'nbd':
      return undefined
    case 'dm-era': {
      const { DmEra } = await import('../../writelog/dm-era.ts')
      return new DmEra({ ...config, disk })
    }
    case 'qemu': {
      const { QemuBitmap } = await import('../../writelog/qemu-bitmap.ts')
      return new QemuBitmap({ ...config, ...options, disk })
    }
  }
}

/**
 * The log of a disk that a monitor is set up for, and from now on the one that restores go by. A place where no log of this
 * machine was kept until now must hold nothing, or a log, which begins anew. Locked until the stack is disposed; not opened yet.
 * Errors: STATE_IN_USE, LOG_PLACE_TAKEN, those of {@link writeLogConfig} and of the storage.
 */
export async function setUpLog(
  stateDir: string,
  config: LogConfig,
  device: BlockDevice,
  stack: AsyncDisposableStack,
  options: Pick<DurableBitmapOptions, 'granuleSize'> & { readonly prepare?: () => Promise<void> } = {},
): Promise<DurableBitmap> {
  const known = await readLogConfig(stateDir)
  const anew = known?.storage !== config.storage || known.source !== config.source
  if (anew) await assertPlaceFree(config.storage, device.path)
  const { prepare, ...others } = options
  const bitmap = await openBitmap(stateDir, config, await diskFacts(device), stack, { ...others, anew })
  await prepare?.()
  // Before the first write: a restore must not go by a log that was kept elsewhere before.
  await writeLogConfig(stateDir, config)
  return bitmap
}

/** The bitmap of a disk, made if it is missing; locked until the stack is disposed. Not opened yet. */
async function openBitmap(
  stateDir: string,
  config: LogConfig,
  disk: DiskFacts,
  stack: AsyncDisposableStack,
  options: Pick<DurableBitmapOptions, 'release' | 'granuleSize'> & { readonly anew?: boolean } = {},
): Promise<DurableBitmap> {
  stack.adopt(await lockLog(stateDir), (release) => release())
  const { anew, ...others } = options
  const { storage, made } = await openLogStorage(config.storage, logFileSize(disk.size, options.granuleSize))
  stack.adopt(storage, (it) => it.close())
  const bitmap = new DurableBitmap({ ...others, storage, disk, source: config.source })
  if (made !== undefined || anew === true) await bitmap.format(made)
  return stack.adopt(bitmap, (it) => it.close())
}

/** The log that a restore goes by: the one that a monitor keeps, or none, so that the disk is scanned. */
export async function openWriteLog(
  stateDir: string,
  device: BlockDevice,
  release: NonNullable<DurableBitmapOptions['release']>,
  stack: AsyncDisposableStack,
): Promise<WriteLog> {
  const config = await readLogConfig(stateDir)
  if (config === undefined) return new ScanLog()
  const tracker = await openTracker(config, device.path)
  const facts = await diskFacts(device)
  if (tracker === undefined) {
    return openBitmap(stateDir, config, facts, stack, { release }).catch((error: unknown) => {
      // What it holds stays true of a disk that a scan puts right, so it may come back later.
      if (isMeshError(error, ...PLACE_MISSING)) return new ScanLog(`the write log cannot be had: ${error.message}`)
      throw error
    })
  }
  const { granuleSize } = tracker
  return new TrackedLog(await openBitmap(stateDir, config, facts, stack, { release, granuleSize }), tracker)
}
