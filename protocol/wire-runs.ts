import { MAX_IMAGE_SIZE_BYTES, MAX_RUNS_PER_HAVE, MAX_WANTS_PER_MESSAGE, MIN_BLOCK_SIZE_BYTES } from './constants.ts'
import type { Digest } from './digest.ts'
import { RangeSet, type Run } from './ranges.ts'
import { violation, type WireReader } from './wire-reader.ts'
import type { WireWriter } from './wire-writer.ts'

/** No block index of any image is larger. */
const MAX_BLOCKS = MAX_IMAGE_SIZE_BYTES / MIN_BLOCK_SIZE_BYTES

/**
 * Codes runs as pairs of varints: the gap since the end of the run before, and the length. Example: blocks 5, 6, 7 and
 * 10 become 5, 3, 2, 1.
 */
export function encodeRuns(w: WireWriter, field: number, ranges: RangeSet): void {
  if (ranges.isEmpty) return
  const pairs: number[] = []
  let at = 0
  for (const [start, end] of ranges.runs()) {
    pairs.push(start - at, end - start)
    at = end
  }
  w.varints(field, pairs)
}

/** The inverse of {@link encodeRuns}. Errors: PROTOCOL_VIOLATION. */
export function readRuns(r: WireReader): RangeSet {
  const runs: Run[] = []
  let at = 0
  while (!r.atEnd) {
    const start = at + r.varint(MAX_BLOCKS)
    const end = start + r.varint(MAX_BLOCKS)
    if (end <= start || end > MAX_BLOCKS) throw violation('a run lies outside any image')
    limited(runs, MAX_RUNS_PER_HAVE).push([start, end])
    at = end
  }
  return RangeSet.from(runs)
}

/** Returns the list if it has room for one more. Errors: PROTOCOL_VIOLATION if it holds `most` already. */
export function limited<T>(list: T[], most: number): T[] {
  if (list.length >= most) throw violation(`more than ${most} items in a list`)
  return list
}

/** Numbers of requests. Errors: PROTOCOL_VIOLATION. */
export function readIds(r: WireReader): number[] {
  const ids: number[] = []
  r.fields({ 1: () => readPacked(r, ids) })
  return ids
}

/** Adds a packed list of varints to `ids`. Errors: PROTOCOL_VIOLATION beyond MAX_WANTS_PER_MESSAGE numbers. */
export function readPacked(r: WireReader, ids: number[]): void {
  const inner = r.nested()
  while (!inner.atEnd) limited(ids, MAX_WANTS_PER_MESSAGE).push(inner.varint())
}

/** A digest that a message must have. Errors: PROTOCOL_VIOLATION, saying `what` is missing. */
export function required(digest: Digest, what: string): Digest {
  if (digest.byteLength === 0) throw violation(what)
  return digest
}

/** Without the fields that were not there. */
export function given<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>
}
