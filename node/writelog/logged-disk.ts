import { byteOffset } from '../../protocol/units.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import type { DoneSoon, Extent, MetaContext, NbdExport } from '../nbd/nbd-export.ts'
import { ALLOCATION_CONTEXT, STATE_DIRTY } from '../nbd/nbd-protocol.ts'
import type { DurableBitmap } from './durable-bitmap.ts'
import { LOG_ZERO_BYTES } from './limits.ts'

/**
 * The NBD context by which other programs can read our log. Bit 0 of the flags: the bytes may differ from the release.
 */
export const DIRTY_CONTEXT = 'lab-mesh:dirty'

/** Longest extent that fits its field in a reply. */
const MAX_EXTENT_BYTES = 0xffff_0000

/**
 * A disk whose writes are logged: mark durable → then write (docs/DURABILITY.md, "Write log"). If the log fails the
 * write fails, too. Trims are logged and otherwise ignored: the restore wants the content of the model, and a block
 * that is given up would have to be fetched.
 */
export class LoggedDisk implements NbdExport {
  readonly name: string
  readonly description: string
  readonly size: number
  readonly readOnly: boolean
  readonly contexts: readonly MetaContext[]
  readonly #device: BlockDevice
  readonly #log: DurableBitmap
  readonly #zeros = Buffer.alloc(LOG_ZERO_BYTES)

  constructor(options: { name: string; device: BlockDevice; log: DurableBitmap; readOnly: boolean }) {
    const { name, device, log, readOnly } = options
    this.name = name
    this.description = `${device.path}, writes logged by lab-mesh`
    this.size = device.size
    this.readOnly = readOnly
    this.#device = device
    this.#log = log
    this.contexts = [
      { name: ALLOCATION_CONTEXT, extents: (_, length) => [{ length: Math.min(length, MAX_EXTENT_BYTES), flags: 0 }] },
      { name: DIRTY_CONTEXT, extents: (offset, length, most) => this.#dirtyExtents(offset, length, most) },
    ]
  }

  read(offset: number, into: Uint8Array): DoneSoon {
    if (this.#device.readNow?.(byteOffset(offset), into) === true) return undefined
    return this.#device.read(byteOffset(offset), into)
  }

  /** Begins to mark the range while its data still comes in. If marking fails, the write of the data fails. */
  announceWrite(offset: number, length: number): void {
    this.#mark(offset, length)?.catch(() => undefined)
  }

  write(offset: number, data: Uint8Array): DoneSoon {
    const marking = this.#mark(offset, data.byteLength)
    if (marking !== undefined) return marking.then(() => this.#device.write(byteOffset(offset), data))
    if (this.#device.writeNow?.(byteOffset(offset), data) === true) return undefined
    return this.#device.write(byteOffset(offset), data)
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#mark(offset, length)
    for (let at = 0; at < length; at += LOG_ZERO_BYTES)
      await this.#device.write(byteOffset(offset + at), this.#zeros.subarray(0, Math.min(LOG_ZERO_BYTES, length - at)))
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#mark(offset, length)
  }

  flush(): Promise<void> {
    return this.#device.flush()
  }

  #mark(offset: number, length: number): Promise<void> | undefined {
    const { unitSize } = this.#log
    return this.#log.markRun(Math.floor(offset / unitSize), Math.ceil((offset + length) / unitSize))
  }

  #dirtyExtents(offset: number, length: number, most: number): Extent[] {
    const { unitSize } = this.#log
    const extents: Extent[] = []
    const end = offset + Math.min(length, MAX_EXTENT_BYTES)
    for (let at = offset; at < end && extents.length < most; ) {
      const unit = Math.floor(at / unitSize)
      const dirty = this.#log.isMarked(unit, unit + 1)
      const next = Math.min(end, this.#log.nextChange(unit, !dirty) * unitSize)
      extents.push({ length: next - at, flags: dirty ? STATE_DIRTY : 0 })
      at = next
    }
    return extents
  }
}
