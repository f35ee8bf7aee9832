import assert from 'node:assert/strict'
import { readSync, writeSync } from 'node:fs'
import { constants, type FileHandle, open, readFile, realpath, stat } from 'node:fs/promises'
import { MAX_IMAGE_SIZE_BYTES } from '../../protocol/constants.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { type ByteCount, type ByteOffset, byteCount } from '../../protocol/units.ts'
import type { BlockDevice } from './block-device.ts'
import { diskEnd, openFault, readOnlyFault, transferFault, unseenDevice } from './device-fault.ts'
import { deviceNumber } from './device-number.ts'
import { QuickTransfers } from './quick-transfers.ts'
import { unlessLimit } from './system-limit.ts'

/** /sys counts the size of every block device in 512 bytes, whatever its own sectors are. */
const SECTOR_BYTES = 512

interface OpenOptions {
  readonly writable: boolean
  readonly alone?: boolean
}

/**
 * Opens a regular file or a block device; links such as /dev/disk/by-id are followed. `alone`: while a block device is open nobody
 * else can mount it, swap to it, or make a RAID or volume of it (O_EXCL without O_CREAT, open(2)).
 * Errors: DISK_MISSING, DISK_UNREADABLE, DISK_READ_ONLY, DISK_IN_USE, DISK_NOT_A_DISK, DISK_EMPTY, DISK_TOO_LARGE, DISK_IO.
 */
export async function openDevice(path: string, options: OpenOptions): Promise<BlockDevice> {
  try {
    // The kind of file is asked for before opening: opening a named pipe would wait for its other end, and opening a
    // tape would move it.
    const facts = await stat(path)
    if (!facts.isFile() && !facts.isBlockDevice()) {
      const what = facts.isDirectory() ? 'a directory' : 'no disk'
      throw new MeshError('DISK_NOT_A_DISK', `${path} is ${what}`, { detail: { path } })
    }
    // Some kernels open such a device for writing, and refuse each write.
    if (options.writable && facts.isBlockDevice() && (await isReadOnly(facts.rdev))) throw readOnlyFault(path)
    const alone = options.alone === true && facts.isBlockDevice() ? constants.O_EXCL : 0
    const handle = await open(path, (options.writable ? constants.O_RDWR : constants.O_RDONLY) | alone)
    try {
      return await deviceOf(handle, path)
    } catch (error) {
      await handle.close()
      throw error
    }
  } catch (error) {
    throw error instanceof MeshError ? error : openFault(path, error, options)
  }
}

async function deviceOf(handle: FileHandle, path: string): Promise<BlockDevice> {
  const facts = await handle.stat()
  const size = facts.isFile() ? facts.size : await blockDeviceSize(facts.rdev, path)
  const sectorSize = facts.isFile() ? undefined : await logicalSectorSize(facts.rdev)
  if (size === 0) throw new MeshError('DISK_EMPTY', `${path} is empty`, { detail: { path } })
  if (size > MAX_IMAGE_SIZE_BYTES) {
    throw new MeshError('DISK_TOO_LARGE', `${path} has ${size} bytes`, { detail: { path, size } })
  }
  return new FileDevice(handle, { path, size: byteCount(size), kind: facts.isFile() ? 'file' : 'block', sectorSize })
}

type FileDeviceFacts = Pick<BlockDevice, 'path' | 'size' | 'kind'> & { readonly sectorSize: number | undefined }

class FileDevice implements BlockDevice {
  readonly path: string
  readonly size: ByteCount
  readonly kind: 'file' | 'block'
  readonly sectorSize?: number
  readonly #handle: FileHandle
  readonly #quickReads = new QuickTransfers()
  readonly #quickWrites = new QuickTransfers()
  /** The fault of a flush that failed; every later flush fails with it. */
  #unflushable: MeshError | undefined

  constructor(handle: FileHandle, { path, size, kind, sectorSize }: FileDeviceFacts) {
    this.#handle = handle
    this.path = path
    this.size = size
    this.kind = kind
    if (sectorSize !== undefined) this.sectorSize = sectorSize
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    this.#assertInside(offset, into.byteLength)
    for (let done = 0; done < into.byteLength; ) {
      const { bytesRead } = await this.#handle
        .read(into, done, into.byteLength - done, offset + done)
        .catch((error: unknown) => Promise.reject(transferFault('reading', this.path, offset + done, error)))
      if (bytesRead === 0) throw transferFault('reading', this.path, offset + done, diskEnd())
      done += bytesRead
    }
  }

  readNow(offset: ByteOffset, into: Uint8Array): boolean {
    this.#assertInside(offset, into.byteLength)
    return this.#quickReads.try(into.byteLength, () => readSync(this.#handle.fd, into, 0, into.byteLength, offset))
  }

  writeNow(offset: ByteOffset, data: Uint8Array): boolean {
    this.#assertInside(offset, data.byteLength)
    return this.#quickWrites.try(data.byteLength, () => writeSync(this.#handle.fd, data, 0, data.byteLength, offset))
  }

  async write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    this.#assertInside(offset, data.byteLength)
    for (let done = 0; done < data.byteLength; ) {
      const { bytesWritten } = await this.#handle
        .write(data, done, data.byteLength - done, offset + done)
        .catch((error: unknown) => Promise.reject(transferFault('writing', this.path, offset + done, error)))
      if (bytesWritten === 0) throw transferFault('writing', this.path, offset + done, new Error('nothing was written'))
      done += bytesWritten
    }
  }

  /**
   * Makes everything written durable. After a failed flush the kernel drops what it could not write, and reports
   * success the next time (https://wiki.postgresql.org/wiki/Fsync_Errors). So after one failure this device fails every
   * flush.
   */
  async flush(): Promise<void> {
    if (this.#unflushable !== undefined) throw this.#unflushable
    try {
      await this.#handle.datasync()
    } catch (cause) {
      const errno = errnoOf(cause)
      this.#unflushable = new MeshError(
        errno === 'ENOSPC' || errno === 'EDQUOT' ? 'DISK_FULL' : 'DISK_IO',
        `flushing ${this.path} failed: ${errno ?? String(cause)}`,
        { detail: { path: this.path }, cause },
      )
      throw this.#unflushable
    }
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  #assertInside(offset: number, length: number): void {
    assert(
      offset + length <= this.size,
      `bytes ${offset} to ${offset + length} of ${this.path}, which has ${this.size}`,
    )
  }
}

/** Whether the kernel lets nobody write to a block device: a switch, `blockdev --setro`, a drive that has locked itself. */
async function isReadOnly(rdev: number): Promise<boolean> {
  const flag = await readFile(`/sys/dev/block/${deviceNumber(rdev)}/ro`, 'utf8').catch(unlessLimit(''))
  return flag.trim() === '1'
}

/** A partition has no queue of its own: that of its disk tells. */
async function logicalSectorSize(rdev: number): Promise<number | undefined> {
  const folder = await realpath(`/sys/dev/block/${deviceNumber(rdev)}`).catch(() => '')
  for (const queue of [`${folder}/queue`, `${folder}/../queue`]) {
    const bytes = Number(await readFile(`${queue}/logical_block_size`, 'utf8').catch(unlessLimit('')))
    if (bytes > 0) return bytes
  }
  return undefined
}

async function blockDeviceSize(rdev: number, path: string): Promise<number> {
  const sectors = await readFile(`/sys/dev/block/${deviceNumber(rdev)}/size`, 'utf8').catch((error: unknown) => {
    throw errnoOf(error) === 'ENOENT' ? unseenDevice(path) : openFault(path, error, { writable: false })
  })
  return Number(sectors.trim()) * SECTOR_BYTES
}
