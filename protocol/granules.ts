import assert from 'node:assert/strict'
import { Bitmap } from './bitmap.ts'
import { GRANULE_CHECK_BYTES, GRANULE_SIZE_BYTES } from './constants.ts'
import { digestOf, sameBytes } from './digest.ts'
import { violation } from './wire-reader.ts'

/**
 * Blocks travel in granules of 4 KiB (docs/PROTOCOL.md, "Granules"). A client may ask for some granules of a block, and
 * a server names granules of zeros instead of sending them. A set of granules is coded as bytes, least significant bit
 * first. No bytes at all stand for the usual case: the client wants the whole block, and no granule is zeros.
 */

const ZEROS = Buffer.alloc(GRANULE_SIZE_BYTES)

/** The answer to a request: the wanted granules in order, without those that `zeros` or `kept` name. */
export interface PackedBlock {
  readonly payload: Uint8Array
  /** Coded set of the granules left out because they are zeros. */
  readonly zeros: Uint8Array
  /**
   * Coded set of the granules left out because the client has them. Only a client that sent {@link granuleChecks} gets
   * it.
   */
  readonly kept?: Uint8Array | undefined
}

/** Granules of a block of `blockSize` bytes: 16 for 64 KiB. */
export function countGranules(blockSize: number): number {
  return blockSize / GRANULE_SIZE_BYTES
}

/** Codes a set of wanted granules; undefined, which means the whole block, becomes no bytes. */
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

/**
 * Tells a server which granules of a block the client has already: the first 4 bytes of the SHA-256 of each granule.
 */
export function granuleChecks(block: Uint8Array): Uint8Array {
  const count = countGranules(block.byteLength)
  return Buffer.concat(Array.from({ length: count }, (_, i) => checkOf(block, i)))
}

/**
 * Packs the wanted granules of a block. The payload is `block` itself if nothing is left out. `checks` say what the
 * client has in the place of the block, and go only with a request for the whole block. Errors: PROTOCOL_VIOLATION if
 * the checks do not fit the block.
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

/** The granules of a block that an answer brings; undefined for the whole block. Errors: PROTOCOL_VIOLATION. */
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

/** Whether granule `i` is zeros. Looking at its first byte first settles nearly all cases without making a view. */
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

/** The content of an answer to a request for a whole block. It is the payload itself if nothing was left out. */
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
