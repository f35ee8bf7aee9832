import type { Digest } from '../../protocol/digest.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import type { ByteCount } from '../../protocol/units.ts'

/** Where in a hash tree some content is expected: level 0 are the data blocks, level 1 the pages that hold their digests. */
export interface Position {
  readonly level: number
  readonly index: number
}

/** Content by digest, proven: what `get` returns has just been hashed. */
export interface BlockSource {
  /** The block or hash page with this digest, or undefined if it is not (or no longer) here. `hint` saves a lookup. */
  get(digest: Digest, hint: Position): Promise<Uint8Array | undefined>
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
  /** Calls `listener` with the blocks gained and lost since the last call, until the returned function is called. */
  onChange(listener: (change: HoldingChange) => void): () => void
}
