/**
 * The room `log`: the write log of this machine's disk. A monitor sets it up, and a restore opens it.
 * log-config says who marks (our NBD server, dm-era or QEMU) and where the bitmap is kept.
 * monitor-nbd, monitor-era and monitor-qemu are the three commands that begin a log. log-peek reads a log that another process
 * writes; log-doubt remembers that a log is not to be believed; log-control shows, exports and forgets it.
 */

import { isMeshError } from '../../../protocol/errors.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { type DiskFacts, diskFacts } from '../../disk/disk-facts.ts'
import type { ChangeTracker } from '../../writelog/change-tracker.ts'
import { DurableBitmap, type DurableBitmapOptions, logFileSize } from '../../writelog/durable-bitmap.ts'
import { assertPlaceFree, openLogStorage } from '../../writelog/log-storage.ts'
import { ScanLog } from '../../writelog/scan-log.ts'
import { TrackedLog } from '../../writelog/tracked-log.ts'
import type { WriteLog } from '../../writelog/write-log.ts'
import { type LogConfig, lockLog, readLogConfig, writeLogConfig } from './log-config.ts'

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
  options: Pick<DurableBitmapOptions, 'unitSize'> & { readonly prepare?: () => Promise<void> } = {},
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
  options: Pick<DurableBitmapOptions, 'release' | 'unitSize'> & { readonly anew?: boolean } = {},
): Promise<DurableBitmap> {
  stack.adopt(await lockLog(stateDir), (release) => release())
  const { anew, ...others } = options
  const { storage, made, place } = await openLogStorage(config.storage, logFileSize(disk.size, options.unitSize))
  stack.adopt(storage, (it) => it.close())
  const bitmap = new DurableBitmap({
    ...others,
    storage,
    disk,
    source: config.source,
    ...(place === undefined ? {} : { place }),
  })
  if (made !== undefined || anew === true) await bitmap.format(made)
  return stack.adopt(bitmap, (it) => it.close())
}

/** The log that a restore goes by: the one that a monitor keeps, or none, so that the disk is scanned. */
export async function openLog(
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
  const { unitSize } = tracker
  return new TrackedLog(await openBitmap(stateDir, config, facts, stack, { release, unitSize }), tracker)
}
