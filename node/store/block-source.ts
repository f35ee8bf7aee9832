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

/** Takes what was asked for by request `at`: just hashed, and undefined if it is not (or no longer) here. */
export type Deliver = (at: number, content: Uint8Array | undefined) => void

/** Content by digest, proven. */
export interface BlockSource {
  /**
   * Delivers an answer to each request, in any order: what is read is read in the order of the disk, neighbours together.
   * Equal requests may get the same buffer. Content that cannot be read is not here.
   */
  getMany(requests: readonly ContentRequest[], deliver: Deliver): Promise<void>
}

/** Blocks that became and ceased to be servable. */
export interface HoldingChange {
  readonly gained: RangeSet
  readonly lost: RangeSet
}

/** What a node says it holds of one image, and how it learns of changes. */
export interface Holding extends BlockSource {
  readonly root: Digest
  readonly size: ByteCount
  readonly blockSize: ByteCount
  /** Data blocks that can be served now (indices of level 0). */
  held(): RangeSet
  /** Whether a block with this content can be served now, wherever it stands. */
  has(digest: Digest): Promise<boolean>
  /** Calls `listener` with the blocks gained and lost since the last call, until the returned function is called. */
  onChange(listener: (change: HoldingChange) => void): () => void
}
