import { constants, type FileHandle, open, readFile, realpath } from 'node:fs/promises'
import { basename } from 'node:path'
import { MAX_IMAGE_SIZE_BYTES } from '../../protocol/constants.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { type ByteCount, type ByteOffset, byteCount } from '../../protocol/units.ts'
import type { BlockDevice } from './block-device.ts'

const SECTOR_BYTES = 512

/**
 * Opens a regular file or a block device.
 * Errors: DISK_MISSING, DISK_UNREADABLE, DISK_NOT_A_DISK, DISK_EMPTY, DISK_TOO_LARGE.
 */
export async function openDevice(path: string, options: { writable: boolean }): Promise<BlockDevice> {
  const handle = await openHandle(path, options.writable)
  try {
    const facts = await handle.stat()
    if (!facts.isFile() && !facts.isBlockDevice()) {
      throw new MeshError('DISK_NOT_A_DISK', `${path} is ${facts.isDirectory() ? 'a directory' : 'no disk'}`, {
        detail: { path },
      })
    }
    const size = facts.isFile() ? facts.size : await blockDeviceSize(path)
    if (size === 0) throw new MeshError('DISK_EMPTY', `${path} is empty`, { detail: { path } })
    if (size > MAX_IMAGE_SIZE_BYTES)
      throw new MeshError('DISK_TOO_LARGE', `${path} has ${size} bytes`, { detail: { path } })
    return new FileDevice(handle, path, byteCount(size), facts.isFile() ? 'file' : 'block')
  } catch (error) {
    await handle.close()
    throw error
  }
}

class FileDevice implements BlockDevice {
  readonly path: string
  readonly size: ByteCount
  readonly kind: 'file' | 'block'
  readonly #handle: FileHandle

  constructor(handle: FileHandle, path: string, size: ByteCount, kind: 'file' | 'block') {
    this.#handle = handle
    this.path = path
    this.size = size
    this.kind = kind
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.byteLength; ) {
      const { bytesRead } = await this.#handle
        .read(into, done, into.byteLength - done, offset + done)
        .catch((error: unknown) => this.#fail('reading', offset + done, error))
      if (bytesRead === 0) this.#fail('reading', offset + done, new Error('the disk ends here'))
      done += bytesRead
    }
  }

  async write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    for (let done = 0; done < data.byteLength; ) {
      const { bytesWritten } = await this.#handle
        .write(data, done, data.byteLength - done, offset + done)
        .catch((error: unknown) => this.#fail('writing', offset + done, error))
      done += bytesWritten
    }
  }

  async flush(): Promise<void> {
    await this.#handle.datasync().catch((error: unknown) => this.#fail('flushing', 0, error))
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  #fail(doing: string, offset: number, cause: unknown): never {
    const errno = errnoOf(cause)
    const why = errno ?? (cause instanceof Error ? cause.message : String(cause))
    throw new MeshError(
      errno === 'ENOSPC' ? 'DISK_FULL' : 'DISK_IO',
      `${doing} ${this.path} failed at byte ${offset}: ${why}`,
      { detail: { path: this.path, offset }, cause },
    )
  }
}

async function openHandle(path: string, writable: boolean): Promise<FileHandle> {
  try {
    return await open(path, writable ? constants.O_RDWR : constants.O_RDONLY)
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'ENXIO') {
      throw new MeshError('DISK_MISSING', `there is no disk ${path}`, { detail: { path }, cause: error })
    }
    if (code === 'EISDIR')
      throw new MeshError('DISK_NOT_A_DISK', `${path} is a directory`, { detail: { path }, cause: error })
    const what = writable ? 'read and written' : 'read'
    throw new MeshError('DISK_UNREADABLE', `${path} cannot be ${what} (${code ?? String(error)})`, {
      detail: { path },
      cause: error,
    })
  }
}

/** Bytes of a block device; links such as /dev/disk/by-id are followed. */
async function blockDeviceSize(path: string): Promise<number> {
  const name = basename(await realpath(path))
  const sectors = await readFile(`/sys/class/block/${name}/size`, 'utf8').catch((cause: unknown) => {
    throw new MeshError('DISK_UNREADABLE', `the size of ${path} cannot be found in /sys/class/block`, {
      detail: { path },
      cause,
    })
  })
  return Number(sectors.trim()) * SECTOR_BYTES
}
