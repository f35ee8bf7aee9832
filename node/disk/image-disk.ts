import assert from 'node:assert/strict'
import type { Bitmap } from '../../protocol/bitmap.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { sameBytes } from '../../protocol/digest.ts'
import { type ByteOffset, byteOffset, countBlocks } from '../../protocol/units.ts'
import type { BlockDevice } from './block-device.ts'

/** The part of a device that an image covers, addressed in blocks. Nothing behind the image is touched through it. */
export class ImageDisk {
  readonly device: BlockDevice
  readonly size: number
  readonly blockSize: number
  readonly blockCount: number
  readonly #zeros: Uint8Array
  /** Bytes moved since it was opened. */
  bytesRead = 0
  bytesWritten = 0

  /** The device must be at least as large as the image. */
  constructor(device: BlockDevice, image: { readonly size: number; readonly blockSize: number }) {
    assert(device.size >= image.size, `${device.path} is smaller than the image`)
    this.device = device
    this.size = image.size
    this.blockSize = image.blockSize
    this.blockCount = countBlocks(image.size, image.blockSize)
    this.#zeros = Buffer.alloc(image.blockSize)
  }

  /** One block in a fresh buffer of the block size; the part of the last block beyond the image reads as zeros. */
  async readBlock(index: number): Promise<Uint8Array> {
    const block = Buffer.allocUnsafeSlow(this.blockSize)
    const length = this.lengthOf(index)
    block.fill(0, length)
    await this.#read(this.#offset(index), block.subarray(0, length))
    this.bytesRead += length
    return block
  }

  /** Reads neighbouring blocks by one read into one buffer; at once if the page cache has them. */
  readBlocks(first: number, count: number): Uint8Array | Promise<Uint8Array> {
    const blocks = Buffer.allocUnsafeSlow(count * this.blockSize)
    const length = (count - 1) * this.blockSize + this.lengthOf(first + count - 1)
    blocks.fill(0, length)
    const inside = blocks.subarray(0, length)
    this.bytesRead += length
    if (this.device.readNow?.(this.#offset(first), inside) === true) return blocks
    return this.device.read(this.#offset(first), inside).then(() => blocks)
  }

  /**
   * Writes one whole block; of the last block only the part inside the image. Zeros over a hole of a file are not
   * written, so that the hole stays a hole.
   */
  async writeBlock(index: number, data: Uint8Array): Promise<void> {
    assert(data.byteLength === this.blockSize)
    const length = this.lengthOf(index)
    if (this.device.kind === 'file' && sameBytes(data, this.#zeros)) {
      if (sameBytes(await this.readBlock(index), this.#zeros)) return
    }
    await this.#write(this.#offset(index), data.subarray(0, length))
    this.bytesWritten += length
  }

  /** Writes some granules of a block, neighbours together, and nothing behind the image. */
  async writeGranules(index: number, data: Uint8Array, granules: Bitmap): Promise<void> {
    assert(data.byteLength === this.blockSize)
    const length = this.lengthOf(index)
    const writes: Promise<void>[] = []
    for (const [first, last] of granules.toRanges().runs()) {
      const [start, end] = [first * GRANULE_SIZE_BYTES, Math.min(last * GRANULE_SIZE_BYTES, length)]
      if (start >= end) break
      writes.push(this.#write(byteOffset(this.#offset(index) + start), data.subarray(start, end)))
      this.bytesWritten += end - start
    }
    await Promise.all(writes)
  }

  flush(): Promise<void> {
    return this.device.flush()
  }

  /** Bytes of the image in this block: the block size, and less only for the last block. */
  lengthOf(index: number): number {
    assert(index >= 0 && index < this.blockCount, `block ${index} of ${this.blockCount}`)
    return Math.min(this.blockSize, this.size - index * this.blockSize)
  }

  /** Reads at once if the page cache answers, which costs less than handing the read to a thread. */
  async #read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    if (this.device.readNow?.(offset, into) !== true) await this.device.read(offset, into)
  }

  async #write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    if (this.device.writeNow?.(offset, data) !== true) await this.device.write(offset, data)
  }

  #offset(index: number): ByteOffset {
    return byteOffset(index * this.blockSize)
  }
}
