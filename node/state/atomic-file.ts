import { open, rename, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { errnoOf, MeshError } from '../../protocol/errors.ts'

/** Zeros that are written at a time. */
const ZEROS_BYTES = 1024 * 1024

/** The last replacement under way of each path. */
const replacing = new Map<string, Promise<void>>()

/**
 * Replaces a file so that a crash leaves the old or the new content, never a mixture: write beside it, fdatasync, rename,
 * fsync the directory (docs/DURABILITY.md). Calls for the same path take effect one after the other.
 * Errors: DISK_FULL, STATE_UNWRITABLE, DISK_IO.
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string, mode = 0o644): Promise<void> {
  const key = resolve(path)
  const turn = (replacing.get(key) ?? Promise.resolve()).then(() => replace(path, bytes, mode))
  // The next in line waits for this one's end, not for its success.
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
    // What a crash left there may have another mode, which opening it would keep.
    await rm(temporary, { force: true })
    await writeDurable(temporary, bytes, mode)
    await rename(temporary, path)
    await fsyncDirectory(dirname(path))
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw storageError(error, path)
  }
}

/** Writes a file in place and makes its content durable; a new name is durable only after {@link fsyncDirectory}. */
export async function writeDurable(path: string, bytes: Uint8Array | string, mode = 0o644): Promise<void> {
  const file = await open(path, 'w', mode)
  try {
    await file.writeFile(bytes)
    await file.datasync()
  } finally {
    await file.close()
  }
}

/** Makes a file of `size` zeros, all written out, so that there is room for every later write; durable when it resolves. */
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

/** The system's error as a fault of the file system that holds `path`, or unchanged if it is of another kind. */
export function storageError(error: unknown, path: string): unknown {
  const code = errnoOf(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new MeshError('DISK_FULL', `no space left for ${path}`, { detail: { path }, cause: error })
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new MeshError('STATE_UNWRITABLE', `${path} cannot be written (${code})`, { detail: { path }, cause: error })
  }
  if (code === 'EIO') {
    return new MeshError('DISK_IO', `the disk that holds ${path} failed (EIO)`, { detail: { path }, cause: error })
  }
  return error
}
