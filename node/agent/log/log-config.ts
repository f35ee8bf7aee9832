import { mkdir, readFile, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { errnoOf } from '../../../protocol/errors.ts'
import { anyText, type Check, either, literal, natural, object, optional } from '../../../protocol/json-shape.ts'
import { storageError, writeFileAtomic } from '../../state/atomic-file.ts'
import { lockDirectory } from '../../state/directory-lock.ts'
import { readStored } from '../../state/stored-document.ts'
import type { EraOrigin } from '../../writelog/dm-era.ts'
import { logLockPath } from '../../writelog/log-lock.ts'
import { isNbdAddress } from '../../writelog/log-storage.ts'

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

/** A path, an address, a name. */
const place = anyText(64 * 1024)
const isLogConfig: Check<LogConfig> = either(
  object({ storage: place, source: literal('nbd') }),
  either(
    object({
      storage: place,
      source: literal('dm-era'),
      name: place,
      metadata: place,
      first: natural(),
      last: natural(),
    }),
    object({ storage: place, source: literal('qemu'), image: place, live: optional(place) }),
  ),
)

/** Where the bitmap is kept if the user names no other place. */
export function defaultLogStorage(stateDir: string): string {
  return join(stateDir, 'write-log', 'bitmap')
}

/** The place of a log, from what was given on the command line. A path becomes absolute, so that it is found from every directory. */
export function logPlace(where: string): string {
  return isNbdAddress(where) ? where : resolve(where)
}

/** The configuration of the log. Undefined if no monitor was ever set up for this machine. Errors: STATE_CORRUPT, FORMAT_NEWER. */
export async function readLogConfig(stateDir: string): Promise<LogConfig | undefined> {
  const path = join(stateDir, 'write-log', 'config.json')
  try {
    return readStored(path, isLogConfig, await readFile(path))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw storageError(error, path)
  }
}

/**
 * Saves the configuration of the log, durably. If QEMU kept the log in another image until now, that image is removed.
 * Errors: DISK_IN_USE while a virtual machine uses that image.
 */
export async function writeLogConfig(stateDir: string, config: LogConfig): Promise<void> {
  const before = await readLogConfig(stateDir)
  if (before?.source === 'qemu' && !(config.source === 'qemu' && config.image === before.image)) await giveUp(before)
  const directory = join(stateDir, 'write-log')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await writeFileAtomic(join(directory, 'config.json'), `${JSON.stringify(config)}\n`)
}

/**
 * Removes the log of this machine. From now on every restore scans.
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

/** Removes QEMU's image. No restore would renew it any more, and a virtual machine would read old blocks from it. */
async function giveUp({ image }: Extract<LogConfig, { source: 'qemu' }>): Promise<void> {
  const { removeImage } = await import('../../writelog/qemu-bitmap.ts')
  await removeImage(image)
}

/** Locks the log until the function that it returns is called: one process at a time may mark or clear. Errors: STATE_IN_USE. */
export function lockLog(stateDir: string): Promise<() => Promise<void>> {
  return lockDirectory(logLockPath(stateDir), `the write log in ${stateDir}`)
}
