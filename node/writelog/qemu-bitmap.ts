import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'
import { openDevice } from '../disk/file-device.ts'
import { storageError } from '../state/atomic-file.ts'
import type { Changes, ChangeTracker } from './change-tracker.ts'
import { type DirtyExtents, readDirtyExtents } from './dirty-extents.ts'
import { QemuImage } from './qemu-image.ts'

interface QemuBitmapOptions {
  /** The qcow2 file. */
  readonly image: string
  /** Path of the managed disk, which is the image's raw external data file. */
  readonly disk: string
  /** Only a look: a machine may be running or starting. Without it a running machine is an error. */
  readonly running?: boolean
  /** Address of an NBD export by which a running machine publishes the bitmap. */
  readonly live?: string
}

/** Bitmaps of this prefix are ours. */
const PREFIX = 'lab-mesh-'

/**
 * The writes that a virtual machine makes, as QEMU records them in a persistent dirty bitmap. Each period is a bitmap.
 * QEMU stores the bitmap when the machine ends in an orderly way. After a kill or a power cut the bitmap is marked as
 * in use, and everything is unknown. A restore writes to the raw disk while no machine runs, so its writes are in no
 * bitmap.
 */
export class QemuBitmap implements ChangeTracker {
  readonly source = 'qemu'
  /**
   * Finer than QEMU's default of 64 KiB: a machine needs 32 MiB of memory for a disk of 1 TiB, and a restore fetches up
   * to 16 times less.
   */
  readonly unitSize = GRANULE_SIZE_BYTES
  readonly #image: QemuImage
  readonly #disk: string
  readonly #running: boolean
  readonly #live: string | undefined

  constructor(options: QemuBitmapOptions) {
    this.#image = new QemuImage(options.image, options.disk)
    this.#disk = options.disk
    this.#running = options.running ?? false
    this.#live = options.live
  }

  /** Makes the image if it is missing. Errors: those of {@link begin}. */
  async prepare(): Promise<void> {
    if ((await this.#image.own()) === undefined) await this.begin()
  }

  /** Errors: TOOL_MISSING; DISK_IN_USE unless it is only looked at. */
  async changedSince(period: string): Promise<Changes> {
    const unknown = (reason: string): Changes => ({ state: 'unknown', reason })
    const running = this.#running
    const info = await this.#image.info({ running })
    if (!period.startsWith(PREFIX)) return unknown('no bitmap of QEMU goes with the log')
    if (typeof info === 'string') return unknown(info)
    const strange = await this.#image.strange(info)
    if (strange !== undefined) return unknown(strange)
    const bitmap = info.bitmaps.find(({ name }) => name === period)
    if (bitmap === undefined) return unknown(`${this.#image.path} has no bitmap ${period}`)
    if (!bitmap.enabled) return unknown(`the bitmap ${period} was switched off`)
    const live = bitmap.inUse && running ? this.#live : undefined
    if (bitmap.inUse && live === undefined)
      return unknown(`QEMU ${running ? 'is running, or ' : ''}was killed: the bitmap ${period} was not stored`)
    try {
      const reading = live === undefined ? this.#image.readBitmap(period, { running }) : readDirtyExtents(live, period)
      const [found, size] = await Promise.all([reading, this.#diskSize()])
      if (found.size !== size) return unknown(`QEMU sees ${found.size} bytes, the disk has ${size}`)
      return { state: 'known', units: toUnits(found, this.unitSize) }
    } catch (error) {
      if (isMeshError(error) && error.code !== 'TOOL_MISSING') return unknown(error.message)
      throw error
    }
  }

  /**
   * Makes the image anew, so that a machine sees what the disk holds from now on ({@link QemuImage}). Errors: those of
   * {@link QemuImage.renew}. A restore must stop then: the machine would not see what it writes.
   */
  async begin(): Promise<string> {
    const name = `${PREFIX}${randomBytes(8).toString('hex')}`
    await this.#image.renew(await this.#diskSize(), name, this.unitSize)
    return name
  }

  /** Only bitmaps of ours are removed. Errors: DISK_IN_USE, QEMU_FAILED, TOOL_MISSING. */
  async end(keep: string): Promise<void> {
    const info = await this.#image.info()
    if (typeof info === 'string') return
    for (const { name } of info.bitmaps)
      if (name.startsWith(PREFIX) && name !== keep) await this.#image.removeBitmap(name)
  }

  async #diskSize(): Promise<number> {
    const device = await openDevice(this.#disk, { writable: false })
    await device.close()
    return device.size
  }
}

/** Removes one of our images. No machine may use it any more. Errors: DISK_IN_USE, TOOL_MISSING, STATE_UNWRITABLE. */
export async function removeImage(path: string): Promise<void> {
  const info = await new QemuImage(path, path).info()
  if (typeof info === 'string' || info.rawDataFile === undefined) return
  if (!info.bitmaps.some(({ name }) => name.startsWith(PREFIX))) return
  await rm(path).catch((error: unknown) => {
    throw storageError(error, path)
  })
}

function toUnits({ bytes }: DirtyExtents, unitSize: number): RangeSet {
  const runs = [...bytes.runs()].map(([start, end]): Run => [Math.floor(start / unitSize), Math.ceil(end / unitSize)])
  return RangeSet.from(runs)
}
