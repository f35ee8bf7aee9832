import type { Bitmap } from '../../../protocol/bitmap.ts'
import type { Digest } from '../../../protocol/digest.ts'

/** What to fetch: items of one level of one image's tree. Level 0 are blocks. */
export interface FetchRequest {
  readonly root: Digest
  readonly level: number
  /** Bytes of one item. */
  readonly blockSize: number
  /** Items of `level` to fetch. The caller keeps it; the fetch works on a copy. */
  readonly wanted: Bitmap
  /** The digest an item must have; at once if it is at hand. */
  readonly digestOf: (index: number) => Digest | Promise<Digest>
  /** For blocks that are wrong only in part. */
  readonly sparse?: SparseBlocks
  /** Other machines of the site begin to fetch the same at about this time. */
  readonly together?: boolean
}

/** Which granules of which blocks are to be fetched, and where the other granules of these blocks come from. */
interface SparseBlocks {
  /** Granules of a block to ask for; undefined for all of it. */
  granules(index: number): Bitmap | undefined
  /** The block as it stands here, in a buffer of its own. */
  read(index: number): Promise<Uint8Array>
  /** Whether what stands here is probably much like it, and published itself: then only the rest crosses the uplink. */
  isAlike?(index: number): boolean
}

/** A verified item. */
export interface FetchedBlock {
  readonly index: number
  /** The whole item, also if only some of its granules were fetched. */
  readonly data: Uint8Array
  readonly peerId: string
  /** Bytes of content that came over the network for it, compressed or not. */
  readonly received: number
  /** The granules that were fetched; undefined for all. */
  readonly granules?: Bitmap
  /** Granules that were not to be fetched turned out to be wrong here, so all of the block was fetched. */
  readonly neighboursWrong?: boolean
}
