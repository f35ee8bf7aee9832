import { createCipheriv, createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import type { Random } from '../lab/random.ts'
import type { Write } from './dirt.ts'

const AES_BLOCK = 16
const ZERO_SHARE = 0.2
const REPEAT_SHARE = 0.05
/**
 * Granules of the longest run of zeros or repeats. Runs have 4 KiB to 2 MiB, and every order of magnitude is equally
 * frequent.
 */
const LONGEST_RUN = 512
const STEP = 1024
const ZERO = -1

/**
 * The content of each granule of 4 KiB: the number of a piece, or -1 for zeros. A piece that stands in two places is a
 * repeat.
 */
export type Layout = Int32Array

/** The content of `count` pieces from number `first` on. */
export type Pieces = (first: number, count: number) => Promise<Uint8Array>

/** Makes a layout with 20 % zeros and 5 % repeats, in runs of 4 KiB to 2 MiB at any granule. */
export function modelLayout(granules: number, random: Random): Layout {
  const layout = Int32Array.from({ length: granules }, (_, i) => i)
  // Granules that are repeats, or are repeated, stay as they are.
  const settled = new Uint8Array(granules)
  spread(granules, Math.round(granules * ZERO_SHARE), random, (at) => {
    if (layout[at] === ZERO) return false
    layout[at] = ZERO
    return true
  })
  const content = granules - Math.round(granules * ZERO_SHARE)
  const repeats = Math.min(Math.round(granules * REPEAT_SHARE), Math.floor(content / 4))
  let [from, last] = [0, -2]
  spread(granules, repeats, random, (at) => {
    // A run of repeats goes on reading from where its source begins.
    from = at === last + 1 ? from + 1 : random.below(granules)
    last = at
    if (from >= granules || from === at || settled[at] === 1 || settled[from] === 1) return false
    if (layout[at] === ZERO || layout[from] === ZERO) return false
    layout[at] = layout[from]!
    settled[at] = 1
    settled[from] = 1
    return true
  })
  return layout
}

/** The layout of the next release: granules that the writes cover hold new pieces. */
export function changedLayout(before: Layout, writes: readonly Write[]): Layout {
  const layout = Int32Array.from(before)
  for (const { offset, length } of writes)
    for (let at = offset / GRANULE_SIZE_BYTES; at < (offset + length) / GRANULE_SIZE_BYTES; at++)
      layout[at] = layout.length + at
  return layout
}

/** Calls `change` for granules in runs at random places until it has returned true `count` times. */
function spread(granules: number, count: number, random: Random, change: (at: number) => boolean): void {
  for (let done = 0; done < count; ) {
    const start = random.below(granules)
    const length = Math.ceil(LONGEST_RUN ** random.next())
    for (let at = start; at < Math.min(start + length, granules) && done < count; at++) if (change(at)) done++
  }
}

/** Writes an image of a layout; zeros become holes. Errors: those of the file system. */
export async function writeImage(path: string, layout: Layout, pieces: Pieces): Promise<void> {
  const file = await open(path, 'w')
  try {
    await file.truncate(layout.length * GRANULE_SIZE_BYTES)
    for (let at = 0; at < layout.length; ) {
      const first = layout[at]!
      let length = 1
      while (length < STEP && first !== ZERO && layout[at + length] === first + length) length++
      if (first !== ZERO)
        await file.write(await pieces(first, length), 0, length * GRANULE_SIZE_BYTES, at * GRANULE_SIZE_BYTES)
      at += length
    }
  } finally {
    await file.close()
  }
}

/** Pieces of a key stream, which nothing compresses. The same seed gives the same bytes. */
export function randomPieces(seed: number): Pieces {
  const key = createHash('sha256').update(`mesh lab ${seed}`).digest().subarray(0, 16)
  return async (first, count) => {
    const counter = Buffer.alloc(AES_BLOCK)
    counter.writeBigUInt64BE(BigInt(first) * BigInt(GRANULE_SIZE_BYTES / AES_BLOCK), 8)
    return createCipheriv('aes-128-ctr', key, counter).update(Buffer.alloc(count * GRANULE_SIZE_BYTES))
  }
}
