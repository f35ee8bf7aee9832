/**
 * The folder node/store is what this machine holds of images: hash trees, and blocks that peers may ask for.
 * - `tree-store` has one file for each hash tree; `tree-file` reads and writes one; `build-tree` makes one of a disk, which `copy-disk` can copy.
 * - `disk-source` serves blocks from the disk, `staged-source` from the `stage`, where blocks of a coming release wait.
 * - `location-index` finds the place of a block by its digest; `changed-blocks` compares two trees.
 * - `change-teller` tells listeners which blocks were gained and lost.
 *
 * The interfaces below are what node/exchange serves from.
 */

import type { Digest } from '../../protocol/digest.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import type { ByteCount } from '../../protocol/units.ts'

/** Where in a hash tree some content is expected: level 0 are the data blocks, level 1 the pages that hold their digests. */
export interface Position {
  readonly level: number
  readonly index: number
}

/** Content that is asked for by its digest; the position saves a lookup. */
export interface ContentRequest extends Position {
  readonly digest: Digest
}

/** Takes the answer to request number `at`: content that was just hashed, or undefined if it is not here any more. */
export type Deliver = (at: number, content: Uint8Array | undefined) => void

/** Content by digest, proven. */
export interface BlockSource {
  /**
   * Delivers an answer to each request, in any order. Blocks are read in the order of the disk, neighbours together.
   * Equal requests may get the same buffer. Content that cannot be read counts as not here.
   */
  getMany(requests: readonly ContentRequest[], deliver: Deliver): Promise<void>
}

/** Blocks that can be served from now on, and blocks that cannot be served any more. */
export interface HoldingChange {
  readonly gained: RangeSet
  readonly lost: RangeSet
}

/** What a node says it holds of one image. It tells listeners of changes. */
export interface Holding extends BlockSource {
  readonly root: Digest
  readonly size: ByteCount
  readonly blockSize: ByteCount
  /** Data blocks that can be served now (indices of level 0). */
  held(): RangeSet
  /** Whether a block with this content can be served now, wherever it stands. */
  has(digest: Digest): Promise<boolean>
  /** Calls `listener` with the blocks gained and lost since its last call, until the returned function is called. */
  onChange(listener: (change: HoldingChange) => void): () => void
}
