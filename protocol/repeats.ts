import assert from 'node:assert/strict'
import { GRANULE_SIZE_BYTES, MAX_IMAGE_SIZE_BYTES } from './constants.ts'
import { assertFormat, formatOfMessage } from './document.ts'
import { isMeshError } from './errors.ts'
import { violation, WireReader } from './wire-reader.ts'
import { WireWriter } from './wire-writer.ts'

/**
 * Content that stands in an image a second time, at a distance that is no whole number of blocks, so that digests of
 * blocks do not show it (docs/PROTOCOL.md, "Repeats"). Places and lengths are in granules of 4 KiB from the beginning
 * of the image. Example: `{ to: 40, from: 3, count: 2 }` says that granules 40 and 41 equal granules 3 and 4.
 */
export interface Repeat {
  /** Where the repeat begins. */
  readonly to: number
  /** Where the same content begins that comes first. It ends before `to`. */
  readonly from: number
  readonly count: number
}

const LENGTH_BYTES = 4
/** Bytes that a coded repeat takes at least. */
const REPEAT_BYTES = 3
const MAX_GRANULES = MAX_IMAGE_SIZE_BYTES / GRANULE_SIZE_BYTES

/**
 * Codes repeats, in ascending order of `to`, as one page of `pageSize` bytes: a length of 4 bytes (little endian), a
 * message with a packed list of three varints for each repeat (the gap since the end of the repeat before, `from`,
 * `count`), and zeros. If not all repeats fit, the longest ones are kept.
 */
export function encodeRepeats(repeats: readonly Repeat[], pageSize: number): Uint8Array {
  const longest = repeats.toSorted((a, b) => b.count - a.count).slice(0, pageSize / REPEAT_BYTES)
  for (let kept = longest.length; ; kept = Math.floor(kept * (kept > 16 ? 0.9 : 0.5))) {
    const body = encodeBody(longest.slice(0, kept).sort((a, b) => a.to - b.to))
    if (LENGTH_BYTES + body.byteLength > pageSize) continue
    const page = Buffer.alloc(pageSize)
    page.writeUInt32LE(body.byteLength)
    page.set(body, LENGTH_BYTES)
    return page
  }
}

function encodeBody(repeats: readonly Repeat[]): Uint8Array {
  const w = new WireWriter()
  const values: number[] = []
  let end = 0
  for (const { to, from, count } of repeats) {
    assert(to >= end && count > 0 && from + count <= to)
    values.push(to - end, from, count)
    end = to + count
  }
  w.varints(1, values)
  return w.finish()
}

/**
 * The inverse of {@link encodeRepeats}. Errors: PROTOCOL_VIOLATION if the page is none, or speaks of granules beyond the
 * image; FORMAT_NEWER.
 */
export function decodeRepeats(page: Uint8Array, imageSize: number): Repeat[] {
  try {
    const body = Buffer.from(page.buffer, page.byteOffset, page.byteLength)
    const length = body.readUInt32LE()
    if (LENGTH_BYTES + length > body.byteLength) throw violation('a list of repeats is longer than its page')
    const message = body.subarray(LENGTH_BYTES, LENGTH_BYTES + length)
    assertFormat('the list of repeats', formatOfMessage(message))
    return decodeBody(message, Math.floor(imageSize / GRANULE_SIZE_BYTES))
  } catch (error) {
    if (isMeshError(error)) throw error
    // The protobuf library throws plain errors where bytes are missing.
    throw violation(String(error))
  }
}

function decodeBody(body: Uint8Array, granules: number): Repeat[] {
  const repeats: Repeat[] = []
  const reader = new WireReader(body)
  reader.fields({
    1: () => {
      const list = reader.nested()
      let end = 0
      while (!list.atEnd) {
        const to = end + list.varint(MAX_GRANULES)
        const [from, count] = [list.varint(MAX_GRANULES), list.varint(MAX_GRANULES)]
        end = to + count
        if (count === 0 || from + count > to || end > granules) throw violation('a repeat is none of this image')
        repeats.push({ to, from, count })
      }
    },
  })
  return repeats
}
