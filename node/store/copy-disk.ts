import { type BigIntStats, constants } from 'node:fs'
import { copyFile, open, rename, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { MeshError } from '../../protocol/errors.ts'
import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import { openDevice } from '../disk/file-device.ts'
import type { ReportProgress } from '../disk/progress.ts'
import { fsyncDirectory, storageError } from '../state/atomic-file.ts'
import { COPY_HOLE_BYTES, COPY_READ_BYTES } from './limits.ts'

/** A copy that is complete and durable under a passing name. It is served only after {@link keepCopy}. */
interface DiskCopy {
  /** Path of the copy now. */
  readonly path: string
  /** Path that it gets when it is kept. */
  readonly to: string
}

/**
 * Copies a disk to the file `to`, whose former content stays until {@link keepCopy}. File systems that can share blocks share
 * them (reflink); otherwise runs of zeros become holes. Nothing is left of a copy that failed; what a crash has left is removed
 * by the next copy. Errors: DISK_FULL before anything is copied, if there is no room for it; INTERRUPTED, and those of the disk.
 */
export async function copyDisk(
  from: string,
  to: string,
  options: { progress: ReportProgress; signal: AbortSignal },
): Promise<DiskCopy> {
  const copy = { path: `${to}.part`, to }
  const device = await openDevice(from, { writable: false })
  try {
    await rm(copy.path, { force: true })
    if (device.kind === 'block' || !(await reflink(from, copy.path))) {
      await assertRoom(device, copy)
      await copyContent(device, copy.path, options)
    }
    const file = await open(copy.path, 'r')
    await file.datasync().finally(() => file.close())
    return copy
  } catch (error) {
    await dropCopy(copy)
    throw storageError(error, to)
  } finally {
    await device.close()
  }
}

/** Gives a copy its name, durably. Returns its path. Errors: DISK_FULL, STATE_UNWRITABLE. */
export async function keepCopy({ path, to }: DiskCopy): Promise<string> {
  try {
    await rename(path, to)
    await fsyncDirectory(dirname(to))
    return to
  } catch (error) {
    throw storageError(error, to)
  }
}

/** Removes a copy that is of no use. */
export async function dropCopy({ path }: DiskCopy): Promise<void> {
  await rm(path, { force: true }).catch(() => undefined)
}

async function reflink(from: string, to: string): Promise<boolean> {
  return copyFile(from, to, constants.COPYFILE_FICLONE_FORCE).then(
    () => true,
    () => false,
  )
}

/** Holes of a file take no room in the copy. What a device holds is known only once it is read, so all of it counts. */
async function assertRoom(device: BlockDevice, { to }: DiskCopy): Promise<void> {
  const facts: BigIntStats = await stat(device.path, { bigint: true })
  const needed = facts.isFile() ? Math.min(Number(facts.blocks) * 512, device.size) : device.size
  const { bavail, bsize } = await statfs(dirname(to))
  const free = bavail * bsize
  if (free >= needed) return
  const text = `a copy of ${device.path} takes ${needed} bytes, and the file system of ${dirname(to)} has ${free} free`
  throw new MeshError('DISK_FULL', text, { detail: { path: to, needed, free } })
}

async function copyContent(
  device: BlockDevice,
  to: string,
  { progress, signal }: { progress: ReportProgress; signal: AbortSignal },
): Promise<void> {
  const { size } = device
  const file = await open(to, 'w', 0o600)
  try {
    await file.truncate(size)
    const buffer = Buffer.alloc(COPY_READ_BYTES)
    for (let at = 0; at < size; at += buffer.byteLength) {
      if (signal.aborted) throw new MeshError('INTERRUPTED', `copying ${device.path} was interrupted`)
      const read = buffer.subarray(0, Math.min(buffer.byteLength, size - at))
      await device.read(byteOffset(at), read)
      for (const [start, end] of dataRuns(read)) await writeAll(file, read.subarray(start, end), at + start)
      progress({ phase: 'copy', doneBytes: at + read.byteLength, totalBytes: size })
    }
  } finally {
    await file.close()
  }
}

/** A write may take less than it was given. */
async function writeAll(file: Awaited<ReturnType<typeof open>>, data: Buffer, at: number): Promise<void> {
  for (let done = 0; done < data.byteLength; ) {
    const { bytesWritten } = await file.write(data, done, data.byteLength - done, at + done)
    done += bytesWritten
  }
}

/** Runs [start, end) of pieces that are not all zeros. */
function* dataRuns(bytes: Buffer): Generator<[number, number]> {
  let start: number | undefined
  for (let at = 0; at < bytes.byteLength; at += COPY_HOLE_BYTES) {
    const end = Math.min(at + COPY_HOLE_BYTES, bytes.byteLength)
    const isHole = bytes.subarray(at, end).equals(ZEROS.subarray(0, end - at))
    if (!isHole) start ??= at
    else if (start !== undefined) {
      yield [start, at]
      start = undefined
    }
  }
  if (start !== undefined) yield [start, bytes.byteLength]
}

const ZEROS = Buffer.alloc(COPY_HOLE_BYTES)
