import { open, rename, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { systemLimit } from '../disk/system-limit.ts'

/** Bytes of zeros that are written at a time. */
const ZEROS_BYTES = 1024 * 1024

/** The replacement of each path that was asked for last and has not ended. */
const replacing = new Map<string, Promise<void>>()

/**
 * Replaces a file. A crash leaves the old content or the new content, never a mixture: write beside the file,
 * fdatasync, rename, fsync of the directory (docs/DURABILITY.md). Calls for the same path take effect one after the
 * other. Errors: DISK_FULL, STATE_UNWRITABLE, DISK_IO.
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string, mode = 0o644): Promise<void> {
  const key = resolve(path)
  const turn = (replacing.get(key) ?? Promise.resolve()).then(() => replace(path, bytes, mode))
  // The next call waits for the end of this one, successful or not.
  const ended = turn.catch(() => undefined)
  replacing.set(key, ended)
  try {
    await turn
  } finally {
    if (replacing.get(key) === ended) replacing.delete(key)
  }
}

async function replace(path: string, bytes: Uint8Array | string, mode: number): Promise<void> {
  const temporary = `${path}.new`
  try {
    // A file that a crash left there may have another mode, and opening it would keep that mode.
    await rm(temporary, { force: true })
    await writeDurable(temporary, bytes, mode)
    await rename(temporary, path)
    await fsyncDirectory(dirname(path))
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw storageError(error, path)
  }
}

/** Writes a file in place and makes its content durable. A new name is durable only after {@link fsyncDirectory}. */
export async function writeDurable(path: string, bytes: Uint8Array | string, mode = 0o644): Promise<void> {
  const file = await open(path, 'w', mode)
  try {
    await file.writeFile(bytes)
    await file.datasync()
  } finally {
    await file.close()
  }
}

/**
 * Makes a file of `size` zeros and writes all of them out, so that every later write has room. Durable when it
 * resolves.
 */
export async function writeZeros(path: string, size: number): Promise<void> {
  const file = await open(path, 'w', 0o600)
  try {
    const zeros = Buffer.alloc(Math.min(size, ZEROS_BYTES))
    for (let at = 0; at < size; at += zeros.byteLength)
      await file.write(zeros, 0, Math.min(zeros.byteLength, size - at), at)
    await file.datasync()
  } finally {
    await file.close()
  }
  await fsyncDirectory(dirname(path))
}

/** Makes the names in a directory durable: created, renamed and removed entries. */
export async function fsyncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** Makes a MeshError of an error of the file system that holds `path`; returns errors of other kinds unchanged. */
export function storageError(error: unknown, path: string): unknown {
  const limit = systemLimit(error)
  if (limit !== undefined) return limit
  const code = errnoOf(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new MeshError('DISK_FULL', `no space left for ${path}`, { detail: { path }, cause: error })
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOLCK' || code === 'EOPNOTSUPP') {
    const why = { EROFS: ': its file system is read-only', ENOLCK: ': its file system keeps no locks' }[code as string]
    const text = `${path} cannot be written (${code})${why ?? ''}`
    return new MeshError('STATE_UNWRITABLE', text, { detail: { path }, cause: error })
  }
  if (code === 'EIO') {
    return new MeshError('DISK_IO', `the disk that holds ${path} failed (EIO)`, { detail: { path }, cause: error })
  }
  return error
}
