import { stat } from 'node:fs/promises'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import { openDevice } from '../disk/file-device.ts'
import { openNbdDevice } from '../nbd/nbd-device.ts'
import { storageError, writeZeros } from '../state/atomic-file.ts'
import { isLogOrNothing, SECTOR_BYTES } from './log-layout.ts'
import { type LogPlace, placeOf } from './log-place.ts'

/** Storage for a write log. `made`: why it holds no log yet, if it had to be made. `place`: what its file is, if it is one. */
interface LogStorage {
  readonly storage: BlockDevice
  readonly made?: string
  readonly place?: LogPlace
}

/**
 * Opens the storage of a log. A file that is missing or too short is made `size` bytes long and filled with zeros, so
 * that a later mark need not wait for the records of the file system. A block device is opened as it is. At an `nbd://`
 * address an NBD server, perhaps on another machine, keeps the log. Errors: those of openDevice and openNbdDevice,
 * STATE_UNWRITABLE, DISK_FULL, DISK_TOO_SMALL.
 */
export async function openLogStorage(where: string, size: number): Promise<LogStorage> {
  const remote = isNbdAddress(where)
  const made = remote ? undefined : await makeFile(where, size)
  const storage = remote ? await openNbdDevice(where, { writable: true }) : await openDevice(where, { writable: true })
  if (storage.size < size) {
    await storage.close()
    throw new MeshError('DISK_TOO_SMALL', `${where} has ${storage.size} bytes; the write log needs ${size}`)
  }
  const place = remote ? undefined : await placeOf(where)
  return { storage, ...(made === undefined ? {} : { made }), ...(place === undefined ? {} : { place }) }
}

/**
 * Refuses a place for a new log unless it is empty or holds a log, and is not the disk that the log is of. Errors:
 * LOG_PLACE_TAKEN, and those of {@link openStoredLog}.
 */
export async function assertPlaceFree(where: string, disk: string): Promise<void> {
  const taken = (what: string): MeshError => new MeshError('LOG_PLACE_TAKEN', `${where} ${what}; no log is kept there`)
  if (!isNbdAddress(where)) {
    const [place, own] = await Promise.all([stat(where).catch(() => undefined), stat(disk)])
    if (place === undefined || (place.isFile() && place.size === 0)) return
    const same = place.isBlockDevice() ? place.rdev === own.rdev : place.dev === own.dev && place.ino === own.ino
    if (same && (place.isFile() || place.isBlockDevice())) throw taken('is the disk itself')
  }
  const storage = await openStoredLog(where)
  try {
    const sector = Buffer.alloc(SECTOR_BYTES)
    await storage.read(byteOffset(0), sector.subarray(0, Math.min(SECTOR_BYTES, storage.size)))
    if (!isLogOrNothing(sector)) throw taken('holds something else')
  } finally {
    await storage.close()
  }
}

/** Opens a log to look at it. Errors: those of openDevice and openNbdDevice. */
export function openStoredLog(where: string): Promise<BlockDevice> {
  return isNbdAddress(where) ? openNbdDevice(where, { writable: false }) : openDevice(where, { writable: false })
}

/** Whether the place of a log is the address of an NBD server (`nbd://HOST/NAME`, `nbd+unix:…`), not a path. */
export function isNbdAddress(where: string): boolean {
  return /^nbds?(\+\w+)?:/.test(where)
}

async function makeFile(path: string, size: number): Promise<string | undefined> {
  try {
    const found = await stat(path).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    })
    if (found !== undefined && (!found.isFile() || found.size >= size)) return undefined
    await writeZeros(path, size)
    return found === undefined
      ? 'no restore has been made under this log yet'
      : `the log file was cut short: ${found.size} of ${size} bytes`
  } catch (error) {
    throw storageError(error, path)
  }
}
