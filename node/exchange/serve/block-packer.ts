import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'
import { constants, zstdCompress } from 'node:zlib'
import type { PackedBlock } from '../../../protocol/granules.ts'
import { CODING, type Coding } from '../../../protocol/messages.ts'
import { looksCompressible } from './compressibility.ts'
import { COMPRESSED_AT_MOST, COMPRESSION_LEVEL, MAX_PACKING, MAX_WAITING_TO_PACK } from './limits.ts'

const compress = promisify(zstdCompress)

/** An answer as it travels. `packedUs`: microseconds that compressing it took; 0: it is plain. */
export interface CodedBlock extends PackedBlock {
  readonly coding: Coding
  readonly packedUs: number
}

/**
 * Compresses answers for clients that want that, on half of the cores (two at most) and off the main thread. Answers that it
 * cannot keep up with travel plain, so clients cannot make it do more work than that.
 */
export class BlockPacker {
  /** Answers that are compressed at a time. */
  readonly #places: number
  #packing = 0
  readonly #waiting: (() => void)[] = []

  constructor(places = Math.max(1, Math.min(MAX_PACKING, Math.floor(availableParallelism() / 2)))) {
    this.#places = places
  }

  /** `from`: bytes from which on the client takes an answer compressed; 0: never. */
  async pack(block: PackedBlock, from: number): Promise<CodedBlock> {
    const plain = { ...block, coding: CODING.plain, packedUs: 0 }
    const { payload } = block
    if (from === 0 || payload.byteLength < from || payload.byteLength === 0) return plain
    if (!looksCompressible(payload)) return plain
    if (this.#packing >= this.#places && this.#waiting.length >= MAX_WAITING_TO_PACK) return plain
    await this.#enter()
    try {
      const begun = performance.now()
      const packed = await compress(payload, {
        chunkSize: payload.byteLength,
        params: { [constants.ZSTD_c_compressionLevel]: COMPRESSION_LEVEL },
      })
      if (packed.byteLength > payload.byteLength * COMPRESSED_AT_MOST) return plain
      const packedUs = Math.ceil((performance.now() - begun) * 1000)
      return { ...block, payload: packed, coding: CODING.zstd, packedUs }
    } finally {
      this.#leave()
    }
  }

  async #enter(): Promise<void> {
    if (this.#packing < this.#places) this.#packing++
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  /** The place goes to the answer that waits longest. */
  #leave(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#packing--
    else next()
  }
}
