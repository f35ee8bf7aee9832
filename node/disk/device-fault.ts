import { errnoOf, MeshError } from '../../protocol/errors.ts'

/** Why a disk could not be opened, as a MeshError: DISK_MISSING, DISK_NOT_A_DISK, DISK_UNREADABLE. */
export function openFault(path: string, cause: unknown, options: { writable: boolean }): MeshError {
  const errno = errnoOf(cause)
  const detail = { path }
  switch (errno) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ENXIO':
    case 'ENODEV':
    case 'ENOMEDIUM':
      return new MeshError('DISK_MISSING', `there is no disk ${path}`, { detail, cause })
    case 'EISDIR':
      return new MeshError('DISK_NOT_A_DISK', `${path} is a directory`, { detail, cause })
    default: {
      const what = options.writable ? 'read and written' : 'read'
      const why = errno ?? (cause instanceof Error ? cause.message : String(cause))
      return new MeshError('DISK_UNREADABLE', `${path} cannot be ${what} (${why})`, { detail, cause })
    }
  }
}

/** A read or write that failed at byte `offset`, as a MeshError: DISK_IO, or DISK_FULL when an image file cannot grow. */
export function transferFault(doing: 'reading' | 'writing', path: string, offset: number, cause: unknown): MeshError {
  const errno = errnoOf(cause)
  const why = errno ?? (cause instanceof Error ? cause.message : String(cause))
  return new MeshError(
    errno === 'ENOSPC' || errno === 'EDQUOT' ? 'DISK_FULL' : 'DISK_IO',
    `${doing} ${path} failed at byte ${offset}: ${why}`,
    { detail: { path, offset }, cause },
  )
}
