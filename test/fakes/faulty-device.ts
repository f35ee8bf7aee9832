import assert from 'node:assert/strict'
import type { BlockDevice } from '../../node/disk/block-device.ts'
import { transferFault } from '../../node/disk/device-fault.ts'
import { MeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { type ByteCount, type ByteOffset, byteCount } from '../../protocol/units.ts'
import type { Random } from '../../tools/lab/random.ts'

const SECTOR_BYTES = 512

/**
 * A disk in memory with the faults that real ones do not produce when asked: bad sectors, no space left, a flush that
 * fails, and a power cut that keeps only some sectors of what was not flushed. The faults are reported as a real disk's.
 */
export class FaultyDevice implements BlockDevice {
  readonly path = 'fake-disk'
  readonly size: ByteCount
  readonly kind: 'file' | 'block'
  /** What a reader sees now. */
  readonly bytes: Buffer
  /** Bytes whose reading fails with EIO. */
  unreadable = RangeSet.empty
  /** Bytes whose writing fails with EIO. */
  unwritable = RangeSet.empty
  /** Bytes that may still be written before ENOSPC. */
  space = Number.POSITIVE_INFINITY
  failFlush = false
  /** What happened, in order: `write 4096 512`, `flush`. */
  readonly journal: string[] = []
  readonly #durable: Buffer

  constructor(content: Uint8Array, kind: 'file' | 'block' = 'block') {
    this.size = byteCount(content.byteLength)
    this.kind = kind
    this.bytes = Buffer.from(content)
    this.#durable = Buffer.from(content)
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    assert(offset + into.byteLength <= this.size)
    this.#check(this.unreadable, 'reading', offset, into.byteLength)
    into.set(this.bytes.subarray(offset, offset + into.byteLength))
  }

  async write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    assert(offset + data.byteLength <= this.size)
    this.#check(this.unwritable, 'writing', offset, data.byteLength)
    const fits = Math.min(data.byteLength, this.space)
    this.bytes.set(data.subarray(0, fits), offset)
    this.space -= fits
    this.journal.push(`write ${offset} ${fits}`)
    if (fits < data.byteLength) throw transferFault('writing', this.path, offset + fits, systemError('ENOSPC'))
  }

  async flush(): Promise<void> {
    if (this.failFlush)
      throw new MeshError('DISK_IO', `flushing ${this.path} failed: EIO`, { cause: systemError('EIO') })
    this.journal.push('flush')
    this.bytes.copy(this.#durable)
  }

  async close(): Promise<void> {
    this.journal.push('close')
  }

  /** The disk after a power cut now: of each sector that was written and not flushed, the old or the new content. */
  afterPowerCut(random: Random): Buffer {
    const left = Buffer.from(this.#durable)
    for (let at = 0; at < this.size; at += SECTOR_BYTES) {
      if (random.below(2) === 1) this.bytes.copy(left, at, at, at + SECTOR_BYTES)
    }
    return left
  }

  #check(bad: RangeSet, doing: 'reading' | 'writing', offset: number, length: number): void {
    const [run] = bad.intersect(RangeSet.of(offset, offset + length)).runs()
    if (run !== undefined) throw transferFault(doing, this.path, run[0], systemError('EIO'))
  }
}

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code })
}
