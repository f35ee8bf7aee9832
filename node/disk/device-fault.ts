import { existsSync } from 'node:fs'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { systemLimit } from './system-limit.ts'

/**
 * Why a disk could not be opened, as a MeshError: DISK_MISSING, DISK_NOT_A_DISK, DISK_READ_ONLY, DISK_IN_USE, DISK_IO,
 * DISK_UNREADABLE; SYSTEM_LIMIT.
 */
export function openFault(path: string, cause: unknown, options: { readonly writable: boolean }): MeshError {
  const limit = systemLimit(cause)
  if (limit !== undefined) return limit
  const errno = errnoOf(cause)
  const fault = (code: ConstructorParameters<typeof MeshError>[0], message: string): MeshError =>
    new MeshError(code, message, { detail: { path }, cause })
  switch (errno) {
    case 'ENOENT':
    case 'ENOTDIR':
      return fault('DISK_MISSING', `there is no disk ${path}`)
    case 'ENXIO':
    case 'ENODEV':
      return fault('DISK_MISSING', `there is a name ${path}, but no device behind it (${errno})`)
    case 'ENOMEDIUM':
      return fault('DISK_MISSING', `the drive ${path} has no medium in it (${errno})`)
    case 'EISDIR':
      return fault('DISK_NOT_A_DISK', `${path} is a directory`)
    case 'EROFS':
      return fault(
        'DISK_READ_ONLY',
        `${path} is read-only, or lies on a file system that is mounted read-only (${errno})`,
      )
    case 'EBUSY':
    case 'ETXTBSY':
      return fault(
        'DISK_IN_USE',
        `${path} is in use: as swap space, by a RAID, or by a program that runs from it (${errno})`,
      )
    case 'EIO':
      return fault('DISK_IO', `opening ${path} failed: ${errno}`)
    default: {
      const what = options.writable ? 'read and written' : 'read'
      const why = errno ?? (cause instanceof Error ? cause.message : String(cause))
      return fault('DISK_UNREADABLE', `${path} cannot be ${what} (${why})`)
    }
  }
}

/** That a folder of the kernel, `/proc` or `/sys`, is not mounted here: KERNEL_FILES_MISSING. `what`: what cannot be told without it. */
export function kernelFilesMissing(path: string, folder: string, what: string): MeshError {
  return new MeshError('KERNEL_FILES_MISSING', `${folder} is not mounted here, so nothing tells ${what} (${path})`, {
    detail: { path },
  })
}

/**
 * Why the kernel shows nothing in /sys of a device whose node is there: DISK_MISSING if it was unplugged, KERNEL_FILES_MISSING if /sys
 * is not mounted.
 */
export function unseenDevice(path: string, sys = '/sys'): MeshError {
  if (!existsSync(`${sys}/dev/block`)) return kernelFilesMissing(path, sys, 'what kind of disk this is, and how large')
  return new MeshError('DISK_MISSING', `there is a name ${path}, but the kernel has no such device`, {
    detail: { path },
  })
}

/** That a block device takes no writes, as the kernel says: DISK_READ_ONLY. */
export function readOnlyFault(path: string): MeshError {
  return new MeshError('DISK_READ_ONLY', `${path} is read-only: the kernel lets nobody write to it`, {
    detail: { path },
  })
}

/** The cause of a {@link transferFault} where a disk ends before the bytes do that it had when it was opened. */
export function diskEnd(): Error {
  return Object.assign(new Error('the disk ends here'), { code: 'EOF' })
}

/**
 * A read or write that failed at byte `offset`, as a MeshError: DISK_IO, DISK_SHRUNK at the {@link diskEnd}, DISK_READ_ONLY, or
 * DISK_FULL when an image file cannot grow.
 */
export function transferFault(doing: 'reading' | 'writing', path: string, offset: number, cause: unknown): MeshError {
  const errno = errnoOf(cause)
  const why = errno ?? (cause instanceof Error ? cause.message : String(cause))
  const options = { detail: { path, offset }, cause }
  if (errno === 'EOF')
    return new MeshError(
      'DISK_SHRUNK',
      `${path} ends at byte ${offset}: it has become shorter while it was used`,
      options,
    )
  const message = `${doing} ${path} failed at byte ${offset}: ${why}`
  if (errno === 'ENOSPC' || errno === 'EDQUOT') return new MeshError('DISK_FULL', message, options)
  // A block device that was made read-only after it was opened answers so.
  if (doing === 'writing' && (errno === 'EPERM' || errno === 'EROFS'))
    return new MeshError('DISK_READ_ONLY', `${message}, because the disk has become read-only`, options)
  return new MeshError('DISK_IO', message, options)
}
