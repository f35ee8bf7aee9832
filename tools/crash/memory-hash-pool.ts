import type { BlockDevice } from '../../node/disk/block-device.ts'
import type { HashRun } from '../../node/disk/hash-messages.ts'
import { HashPool, type ScannedRun } from '../../node/disk/hash-pool.ts'
import { DIGEST_SIZE_BYTES } from '../../protocol/constants.ts'
import { digestOf } from '../../protocol/digest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { byteOffset, countBlocks } from '../../protocol/units.ts'

/** Blocks read at a time. */
const STEP = 32

/** Hashes a device that has no path which threads could open. */
export class MemoryHashPool extends HashPool {
  readonly #device: BlockDevice

  constructor(device: BlockDevice) {
    super({ workers: 1 })
    this.#device = device
  }

  override async hashRun({ offset, length, blockSize }: Omit<HashRun, 'path'>): Promise<Uint8Array> {
    const count = countBlocks(length, blockSize)
    const bytes = Buffer.alloc(count * blockSize)
    await this.#device.read(byteOffset(offset), bytes.subarray(0, length))
    const digests = new Uint8Array(count * DIGEST_SIZE_BYTES)
    for (let i = 0; i < count; i++)
      digests.set(digestOf(bytes.subarray(i * blockSize, (i + 1) * blockSize)), i * DIGEST_SIZE_BYTES)
    return digests
  }

  override async *scan(
    _path: string,
    { size, blockSize }: { readonly size: number; readonly blockSize: number },
    options: { skip?: RangeSet } = {},
  ): AsyncGenerator<ScannedRun> {
    const wanted = RangeSet.of(0, countBlocks(size, blockSize)).subtract(options.skip ?? RangeSet.empty)
    for (const [start, end] of wanted.runs()) {
      for (let first = start; first < end; first += STEP) {
        const offset = first * blockSize
        const length = Math.min(Math.min(first + STEP, end) * blockSize, size) - offset
        yield { first, digests: await this.hashRun({ offset, length, blockSize }) }
      }
    }
  }
}
