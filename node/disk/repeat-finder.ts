import { type FileHandle, open } from 'node:fs/promises'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import type { Repeat } from '../../protocol/repeats.ts'
import { diskEnd, openFault, transferFault } from './device-fault.ts'
import { MAX_ANCHORS, MAX_REPEAT_CANDIDATES, MAX_REPEAT_MISSES, MIN_ANCHOR_BITS } from './limits.ts'
import type { ReportProgress } from './progress.ts'

/** Granules that are compared at a time, at most. Content that only looks alike mostly differs in its first granule. */
const MAX_STEP = 16
/** The part of the table that is filled by the expected number of anchors, and the part that is filled at most. */
const TABLE_LOAD = 0.5
const MAX_TABLE_LOAD = 0.75

/**
 * Finds content that an image has twice at a distance of whole granules, in bounded memory. While the disk is hashed
 * the finder remembers anchors, which are granules chosen by their content. Where an anchor is met again, the granules
 * around both places are compared byte by byte. (Rsync and backup programs find moved content like this, with windows
 * instead of granules.) A repeat of less than ANCHOR_WINDOW granules may hold no anchor, and is not found then. In an
 * image with more than MAX_ANCHORS anchors that holds for somewhat longer repeats, too.
 */
export class RepeatFinder {
  /** For {@link AnchorGatherer}. */
  readonly anchorBits: number
  /** A table with open addressing: a fingerprint, and the number plus one of the granule where it was first met. */
  readonly #keys: Uint32Array
  readonly #places: Uint32Array
  #count = 0
  readonly #candidates: Pick<Repeat, 'to' | 'from'>[] = []

  /** `granules`: how many granules the image has. */
  constructor(granules: number) {
    this.anchorBits = Math.max(MIN_ANCHOR_BITS, Math.ceil(Math.log2(granules / MAX_ANCHORS)))
    const slots = 2 ** Math.ceil(Math.log2(Math.max(64, granules / 2 ** this.anchorBits / TABLE_LOAD)))
    this.#keys = new Uint32Array(slots)
    this.#places = new Uint32Array(slots)
  }

  /** Takes the anchors of the next part of the image, which begins at granule `first`. */
  take(first: number, anchors: Uint32Array): void {
    const mask = this.#keys.length - 1
    for (let i = 0; i < anchors.length; i += 2) {
      const [key, granule] = [anchors[i]!, first + anchors[i + 1]!]
      // The lowest bits may be the same in all fingerprints, so they do not choose the slot.
      let slot = (key >>> this.anchorBits) & mask
      while (this.#places[slot] !== 0 && this.#keys[slot] !== key) slot = (slot + 1) & mask
      const before = this.#places[slot]!
      if (before !== 0) {
        if (this.#candidates.length < MAX_REPEAT_CANDIDATES) this.#candidates.push({ to: granule, from: before - 1 })
      } else if (this.#count < this.#keys.length * MAX_TABLE_LOAD) {
        this.#keys[slot] = key
        this.#places[slot] = granule + 1
        this.#count++
      }
    }
  }

  /**
   * The repeats of the image at `path`, in ascending order. Repeats do not overlap, and no preserved block is part of
   * one. Errors: DISK_IO, INTERRUPTED.
   */
  async find(
    path: string,
    image: { readonly size: number; readonly blockSize: number; readonly preserve: RangeSet },
    { signal, progress }: { readonly signal: AbortSignal; readonly progress: ReportProgress },
  ): Promise<Repeat[]> {
    if (this.#candidates.length === 0) return []
    const handle = await open(path).catch((error: unknown) => {
      throw openFault(path, error, { writable: false })
    })
    try {
      const report = (doneBytes: number): void => progress({ phase: 'repeats', doneBytes, totalBytes: image.size })
      const found = await this.#compare(new Granules(handle, path, image, signal), report)
      report(image.size)
      return found
    } finally {
      await handle.close()
    }
  }

  async #compare(granules: Granules, report: (doneBytes: number) => void): Promise<Repeat[]> {
    const repeats: Repeat[] = []
    let [end, misses] = [0, 0]
    for (const { to, from } of this.#candidates) {
      if (to < end) continue
      report(to * GRANULE_SIZE_BYTES)
      const distance = to - from
      const after = await granules.sameFrom(from, to, distance)
      const before = after === 0 ? 0 : await granules.sameBefore(from, to, Math.min(distance - after, to - end))
      // An image may hold nothing but content that only looks alike, so the search ends after many misses.
      if (after === 0 && ++misses > MAX_REPEAT_MISSES) break
      if (after === 0) continue
      repeats.push({ to: to - before, from: from - before, count: before + after })
      end = to + after
    }
    return repeats
  }
}

/** Compares granules of a disk. */
class Granules {
  readonly #handle: FileHandle
  readonly #path: string
  readonly #count: number
  readonly #signal: AbortSignal
  readonly #isPreserved: (granule: number) => boolean
  readonly #buffers = [
    Buffer.allocUnsafe(MAX_STEP * GRANULE_SIZE_BYTES),
    Buffer.allocUnsafe(MAX_STEP * GRANULE_SIZE_BYTES),
  ] as const

  constructor(
    handle: FileHandle,
    path: string,
    image: { readonly size: number; readonly blockSize: number; readonly preserve: RangeSet },
    signal: AbortSignal,
  ) {
    this.#signal = signal
    this.#handle = handle
    this.#path = path
    this.#count = Math.floor(image.size / GRANULE_SIZE_BYTES)
    this.#isPreserved = (granule) => image.preserve.has(Math.floor((granule * GRANULE_SIZE_BYTES) / image.blockSize))
  }

  /** How many granules from `a` on equal those from `b` on: at most `most`. `a` is less than `b`. */
  async sameFrom(a: number, b: number, most: number): Promise<number> {
    for (let [same, step] = [0, 1]; ; same += step, step = Math.min(2 * step, MAX_STEP)) {
      const count = Math.min(step, most - same, this.#count - b - same)
      const equal = await this.#equal(a + same, b + same, count, (i) => i)
      if (equal < step) return same + equal
    }
  }

  /** How many granules right before `a` equal those before `b`. */
  async sameBefore(a: number, b: number, most: number): Promise<number> {
    for (let [same, step] = [0, 1]; ; same += step, step = Math.min(2 * step, MAX_STEP)) {
      const count = Math.min(step, most - same, a - same)
      const equal = await this.#equal(a - same - count, b - same - count, count, (i) => count - 1 - i)
      if (equal < step) return same + equal
    }
  }

  /** How many of `count` granules are equal in the order of `at` before one is not. */
  async #equal(a: number, b: number, count: number, at: (i: number) => number): Promise<number> {
    if (count <= 0) return 0
    if (this.#signal.aborted) throw new MeshError('INTERRUPTED', 'publishing was interrupted')
    const [left, right] = await Promise.all([
      this.#read(this.#buffers[0], a, count),
      this.#read(this.#buffers[1], b, count),
    ])
    for (let i = 0; i < count; i++) {
      const granule = at(i)
      const [start, end] = [granule * GRANULE_SIZE_BYTES, (granule + 1) * GRANULE_SIZE_BYTES]
      if (left.compare(right, start, end, start, end) !== 0) return i
      if (this.#isPreserved(a + granule) || this.#isPreserved(b + granule)) return i
    }
    return count
  }

  async #read(into: Buffer, granule: number, count: number): Promise<Buffer> {
    const [offset, length] = [granule * GRANULE_SIZE_BYTES, count * GRANULE_SIZE_BYTES]
    let done = 0
    try {
      while (done < length) {
        const { bytesRead } = await this.#handle.read(into, done, length - done, offset + done)
        if (bytesRead === 0) throw diskEnd()
        done += bytesRead
      }
      return into
    } catch (error) {
      throw transferFault('reading', this.#path, offset + done, error)
    }
  }
}
