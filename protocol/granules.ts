import assert from 'node:assert/strict'
import { Bitmap } from './bitmap.ts'
import { GRANULE_CHECK_BYTES, GRANULE_SIZE_BYTES } from './constants.ts'
import { digestOf, sameBytes } from './digest.ts'
import { violation } from './wire-reader.ts'

/**
 * Blocks travel in granules of 4 KiB (docs/PROTOCOL.md, "Granules"): a client may ask for some granules of a block, and
 * granules of zeros are named instead of sent. A set of granules is coded as bytes, least significant bit first; no bytes at
 * all stand for the usual case: all of the block is wanted, none of it is zeros.
 */

const ZEROS = Buffer.alloc(GRANULE_SIZE_BYTES)

/** What answers a request: the wanted granules in order, without those named as zeros. */
export interface PackedBlock {
  readonly payload: Uint8Array
  /** Coded set of the granules left out because they are zeros. */
  readonly zeros: Uint8Array
  /** Coded set of those left out because the client has them; only if it sent {@link granuleChecks}. */
  readonly kept?: Uint8Array | undefined
}

/** Granules of a block of `blockSize` bytes: 16 for 64 KiB. */
export function countGranules(blockSize: number): number {
  return blockSize / GRANULE_SIZE_BYTES
}

/** `undefined`, for the whole block, becomes no bytes. */
export function encodeGranules(granules: Bitmap | undefined): Uint8Array {
  if (granules === undefined) return new Uint8Array()
  const bytes = new Uint8Array(Math.ceil(granules.length / 8))
  granules.store(0, bytes)
  return bytes
}

/** The inverse of {@link encodeGranules}. Errors: PROTOCOL_VIOLATION if the set is empty, or not one of such a block. */
export function decodeGranules(bytes: Uint8Array, blockSize: number): Bitmap | undefined {
  if (bytes.byteLength === 0) return undefined
  const count = countGranules(blockSize)
  if (bytes.byteLength !== Math.ceil(count / 8)) throw violation('a set of granules has the wrong length')
  const granules = new Bitmap(count)
  granules.load(0, bytes)
  if (granules.count === 0) throw violation('a set of granules is empty')
  return granules
}

/** Bytes of content that a request asks for. */
export function wantedBytes(granules: Bitmap | undefined, blockSize: number): number {
  return granules === undefined ? blockSize : granules.count * GRANULE_SIZE_BYTES
}

/** What tells a server which granules of a block it need not send: the first bytes of the SHA-256 of each of these. */
export function granuleChecks(block: Uint8Array): Uint8Array {
  const count = countGranules(block.byteLength)
  return Buffer.concat(Array.from({ length: count }, (_, i) => checkOf(block, i)))
}

/**
 * `block` itself is the payload where it can be. `checks`: of what the client has in the place of a block that it wants all of.
 * Errors: PROTOCOL_VIOLATION if those are not of such a block.
 */
export function packBlock(block: Uint8Array, wanted: Bitmap | undefined, checks?: Uint8Array): PackedBlock {
  if (checks === undefined) return pack(block, wanted)
  const count = countGranules(block.byteLength)
  if (checks.byteLength !== count * GRANULE_CHECK_BYTES) throw violation('checks of another number of granules')
  const kept = new Bitmap(count)
  for (let i = 0; i < count; i++) {
    const theirs = checks.subarray(i * GRANULE_CHECK_BYTES, (i + 1) * GRANULE_CHECK_BYTES)
    if (wanted?.has(i) !== false && sameBytes(checkOf(block, i), theirs)) kept.set(i)
  }
  if (kept.count === 0) return pack(block, wanted)
  return { ...pack(block, without(wanted, kept)), kept: encodeGranules(kept) }
}

/** What of a block an answer brings; undefined for all of it. Errors: PROTOCOL_VIOLATION. */
export function sentGranules({ kept }: PackedBlock, wanted: Bitmap | undefined, blockSize: number): Bitmap | undefined {
  const left = kept === undefined ? undefined : decodeGranules(kept, blockSize)
  return left === undefined ? wanted : without(wanted, left)
}

function without(wanted: Bitmap | undefined, kept: Bitmap): Bitmap {
  const rest = new Bitmap(kept.length)
  for (let i = 0; i < kept.length; i++) if (wanted?.has(i) !== false && !kept.has(i)) rest.set(i)
  return rest
}

function checkOf(block: Uint8Array, i: number): Uint8Array {
  return digestOf(granuleOf(block, i)).subarray(0, GRANULE_CHECK_BYTES)
}

function pack(block: Uint8Array, wanted: Bitmap | undefined): PackedBlock {
  const count = countGranules(block.byteLength)
  const kept: number[] = []
  let zeros: Bitmap | undefined
  for (let i = 0; i < count; i++) {
    if (wanted !== undefined && !wanted.has(i)) continue
    if (isZeros(block, i)) {
      zeros ??= new Bitmap(count)
      zeros.set(i)
    } else kept.push(i)
  }
  const payload = kept.length === count ? block : Buffer.concat(kept.map((i) => granuleOf(block, i)))
  return { payload, zeros: encodeGranules(zeros) }
}

/** The first byte spares nearly all content a view of it, which costs more than the look. */
function isZeros(block: Uint8Array, i: number): boolean {
  return block[i * GRANULE_SIZE_BYTES] === 0 && ZEROS.equals(granuleOf(block, i))
}

/**
 * The inverse of {@link packBlock}: puts the wanted granules where they belong in `into`, a whole block.
 * Errors: PROTOCOL_VIOLATION if the payload is not as long as what was asked, or zeros were not asked for.
 */
export function unpackBlock({ payload, zeros }: PackedBlock, wanted: Bitmap | undefined, into: Uint8Array): void {
  const left = decodeGranules(zeros, into.byteLength)
  for (const i of left?.values() ?? []) {
    if (wanted?.has(i) === false) throw violation('granules that were not asked for')
    granuleOf(into, i).fill(0)
  }
  let at = 0
  for (let i = 0; i < countGranules(into.byteLength); i++) {
    if (wanted?.has(i) === false || left?.has(i) === true) continue
    if (at + GRANULE_SIZE_BYTES > payload.byteLength) throw violation('fewer bytes than asked for')
    granuleOf(into, i).set(payload.subarray(at, at + GRANULE_SIZE_BYTES))
    at += GRANULE_SIZE_BYTES
  }
  if (at !== payload.byteLength) throw violation('more bytes than asked for')
}

/** The content of an answer to a request for a whole block; the payload itself if nothing was left out. */
export function unpackWhole(packed: PackedBlock, blockSize: number): Uint8Array {
  if (packed.zeros.byteLength === 0 && packed.payload.byteLength === blockSize) return packed.payload
  const block = Buffer.allocUnsafeSlow(blockSize)
  unpackBlock(packed, undefined, block)
  return block
}

/** Granule `i` of a block; not a copy. */
export function granuleOf(block: Uint8Array, i: number): Uint8Array {
  assert(block.byteLength % GRANULE_SIZE_BYTES === 0)
  return block.subarray(i * GRANULE_SIZE_BYTES, (i + 1) * GRANULE_SIZE_BYTES)
}
