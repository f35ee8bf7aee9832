import { mkdir, readFile, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { storageError, writeFileAtomic } from '../../state/atomic-file.ts'
import { lockDirectory } from '../../state/directory-lock.ts'
import type { EraOrigin } from '../../writelog/dm-era.ts'
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
