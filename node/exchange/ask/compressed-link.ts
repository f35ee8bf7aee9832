import assert from 'node:assert/strict'
import { constants, zstdDecompressSync } from 'node:zlib'
import { GRANULE_SIZE_BYTES } from '../../../protocol/constants.ts'
import type { PackedBlock } from '../../../protocol/granules.ts'
import { CODING, type Message } from '../../../protocol/messages.ts'
import { violation } from '../../../protocol/wire-reader.ts'
import { smallestToPack } from './compression-policy.ts'
import {
  ASSUMED_LINK_RATE,
  ASSUMED_PACK_RATE,
  ASSUMED_RATIO,
  ASSUMED_UNPACK_RATE,
  COMPRESSION_SAMPLE_BYTES,
  COMPRESSION_WINDOW_LOG,
} from './limits.ts'

type BlockMessage = Extract<Message, { type: 'block' }>

/** An answer whose payload is plain again. */
export interface ArrivedBlock extends PackedBlock {
  /** Length of the payload as it travelled. */
  readonly wireBytes: number
}

/** Weight of the newest measurement in what is measured. */
const WEIGHT = 0.2
/** Weight of a slower measurement: mostly a thread had to wait for a core, which says nothing of zstd. */
const SLOWER_WEIGHT = 0.02
/** Each plain answer moves what is known of compression so far back to what was assumed: what was slow once is tried again. */
const FORGET = 0.01

/** What a client knows of the link to one peer and of compressing on it; unpacks what comes. */
export class CompressedLink {
  /** What the link is taken to carry until that is measured, bytes per second. */
  #assumedRate = ASSUMED_LINK_RATE
  #packRate = ASSUMED_PACK_RATE
  #unpackRate = ASSUMED_UNPACK_RATE
  #ratio = ASSUMED_RATIO

  /** Takes the link to carry `bytesPerSecond` until that is measured. */
  assumeRate(bytesPerSecond: number): void {
    this.#assumedRate = bytesPerSecond
  }

  /**
   * From which size on answers should be compressed; 0: none. Bytes per second: `linkRate` what the link carries (0: not
   * measured yet), `totalRate` what all peers send.
   */
  packFrom(linkRate: number, totalRate: number): number {
    return smallestToPack({
      linkRate: linkRate || this.#assumedRate,
      totalRate,
      packRate: this.#packRate,
      unpackRate: this.#unpackRate,
      ratio: this.#ratio,
    })
  }

  /**
   * The content of an answer to a request for `wanted` bytes. Errors: PROTOCOL_VIOLATION if it does not unpack to what was
   * wanted.
   */
  arrived(message: BlockMessage, wanted: number): ArrivedBlock {
    const { payload, zeros, kept, coding, packedUs } = message
    if (coding === CODING.plain) {
      this.#packRate += FORGET * (ASSUMED_PACK_RATE - this.#packRate)
      this.#unpackRate += FORGET * (ASSUMED_UNPACK_RATE - this.#unpackRate)
      this.#ratio += FORGET * (ASSUMED_RATIO - this.#ratio)
      return { payload, zeros, kept, wireBytes: payload.byteLength }
    }
    const begun = performance.now()
    const left = countOnes(zeros) + (kept === undefined ? 0 : countOnes(kept))
    const content = unpackPayload(payload, wanted - left * GRANULE_SIZE_BYTES)
    this.#learn(payload.byteLength, content.byteLength, packedUs, (performance.now() - begun) * 1000)
    return { payload: content, zeros, kept, wireBytes: payload.byteLength }
  }

  #learn(packed: number, plain: number, packedUs: number, unpackedUs: number): void {
    this.#ratio += WEIGHT * (packed / plain - this.#ratio)
    if (plain < COMPRESSION_SAMPLE_BYTES) return
    if (packedUs > 0) this.#packRate = moved(this.#packRate, (plain * 1e6) / packedUs)
    if (unpackedUs > 0) this.#unpackRate = moved(this.#unpackRate, (plain * 1e6) / unpackedUs)
  }
}

function moved(rate: number, measured: number): number {
  return rate + (measured > rate ? WEIGHT : SLOWER_WEIGHT) * (measured - rate)
}

/** Takes memory for `length` bytes and one window of zstd, whatever the payload claims. Errors: PROTOCOL_VIOLATION. */
function unpackPayload(payload: Uint8Array, length: number): Uint8Array {
  assert(length % GRANULE_SIZE_BYTES === 0)
  if (length <= 0) throw violation('compressed bytes where only zeros are left')
  let content: Uint8Array
  try {
    content = zstdDecompressSync(payload, {
      maxOutputLength: length,
      chunkSize: length,
      params: { [constants.ZSTD_d_windowLogMax]: COMPRESSION_WINDOW_LOG },
    })
  } catch {
    throw violation('compressed bytes that do not unpack, or to more than was asked for')
  }
  if (content.byteLength !== length) throw violation('compressed bytes that unpack to less than was asked for')
  return content
}

function countOnes(set: Uint8Array): number {
  let count = 0
  for (let byte of set) for (; byte > 0; byte &= byte - 1) count++
  return count
}
