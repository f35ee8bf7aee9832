import type { Extent } from './nbd-export.ts'
import {
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './nbd-protocol.ts'
import type { NbdRequest } from './nbd-request.ts'

const SECTOR_BYTES = 512
const DATA_HEADER_BYTES = CHUNK_HEADER_BYTES + 8

/** Bytes in front of the data of an answered read. */
export function readHeaderBytes(structured: boolean): number {
  return structured ? DATA_HEADER_BYTES : SIMPLE_REPLY_BYTES
}

/** Writes what comes in front of the data of a read: of a whole one, or of the chunk with `length` bytes from `offset`. */
export function writeReadHeader(into: Buffer, request: NbdRequest, structured: boolean): void {
  if (!structured) {
    writeSimple(into, request, 0)
    return
  }
  const { offset, length } = request
  writeChunkHeader(into, request, CHUNK.offsetData, CHUNK_FLAG_DONE, length + 8)
  into.writeUInt32BE(Math.floor(offset / 2 ** 32), CHUNK_HEADER_BYTES)
  into.writeUInt32BE(offset % 2 ** 32, CHUNK_HEADER_BYTES + 4)
}

/** The answer to a request without data in return. */
export function simpleReply(request: NbdRequest, error: number): Buffer {
  const reply = Buffer.allocUnsafe(SIMPLE_REPLY_BYTES)
  writeSimple(reply, request, error)
  return reply
}

/** A structured answer that says why a request failed. */
export function errorChunk(request: NbdRequest, error: number): Buffer {
  // The length of the message is 0.
  const chunk = Buffer.alloc(CHUNK_HEADER_BYTES + 6)
  writeChunkHeader(chunk, request, CHUNK.error, CHUNK_FLAG_DONE, 6)
  chunk.writeUInt32BE(error, CHUNK_HEADER_BYTES)
  return chunk
}

/** Block status in the context `id`. `last`: nothing follows for this request. */
export function statusChunk(request: NbdRequest, id: number, extents: readonly Extent[], last: boolean): Buffer {
  const payload = 4 + extents.length * 8
  const chunk = Buffer.allocUnsafe(CHUNK_HEADER_BYTES + payload)
  writeChunkHeader(chunk, request, CHUNK.blockStatus, last ? CHUNK_FLAG_DONE : 0, payload)
  let at = chunk.writeUInt32BE(id, CHUNK_HEADER_BYTES)
  for (const { length, flags } of extents) at = chunk.writeUInt32BE(flags, chunk.writeUInt32BE(length, at))
  return chunk
}

/** Bytes of the longest status chunk that tells of `length` bytes in at most `most` extents, each of a sector or more. */
export function mostStatusBytes(length: number, most: number): number {
  return CHUNK_HEADER_BYTES + 4 + 8 * Math.min(most, Math.ceil(length / SECTOR_BYTES) + 1)
}

function writeSimple(into: Buffer, { cookieHigh, cookieLow }: NbdRequest, error: number): void {
  into.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0)
  into.writeUInt32BE(error, 4)
  into.writeUInt32BE(cookieHigh, 8)
  into.writeUInt32BE(cookieLow, 12)
}

function writeChunkHeader(
  into: Buffer,
  { cookieHigh, cookieLow }: NbdRequest,
  type: number,
  flags: number,
  length: number,
): void {
  into.writeUInt32BE(STRUCTURED_REPLY_MAGIC, 0)
  into.writeUInt16BE(flags, 4)
  into.writeUInt16BE(type, 6)
  into.writeUInt32BE(cookieHigh, 8)
  into.writeUInt32BE(cookieLow, 12)
  into.writeUInt32BE(length, 16)
}
