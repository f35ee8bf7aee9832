import { Bitmap } from '../../protocol/bitmap.ts'
import { DIGEST_SIZE_BYTES } from '../../protocol/constants.ts'
import { type Digest, zeroDigest } from '../../protocol/digest.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import type { HashPool } from '../disk/hash-pool.ts'
import type { Progress, ReportProgress } from '../disk/progress.ts'
import type { TreeFile } from '../store/tree-file.ts'
import { MAX_DISPLACED_BLOCKS } from './limits.ts'

interface ScanOptions {
  readonly pool: HashPool
  readonly path: string
  readonly tree: TreeFile
  /** Blocks to leave out. */
  readonly preserve: RangeSet
  readonly phase: Progress['phase']
  readonly progress: ReportProgress
  readonly signal: AbortSignal
}

interface ScanResult {
  /** Blocks whose content is not that of the release. */
  readonly dirty: Bitmap
  readonly displaced: DisplacedBlocks
  readonly bytesRead: number
}

/** Reads and hashes the whole disk and compares it with the tree. Errors: DISK_IO, TREE_CORRUPT, INTERRUPTED. */
export async function scanDisk(options: ScanOptions): Promise<ScanResult> {
  const { tree, pool, path } = options
  const { geometry } = tree
  const zero = zeroDigest(geometry.blockSize)
  const dirty = new Bitmap(geometry.blockCount)
  const displaced = new DisplacedBlocks()
  let bytesRead = 0
  for await (const { first, digests } of pool.scan(path, geometry, {
    skip: options.preserve,
    signal: options.signal,
  })) {
    const count = digests.byteLength / DIGEST_SIZE_BYTES
    const expected = await tree.leaves(first, count)
    // Most runs are clean, and one comparison settles a clean run.
    if (Buffer.compare(digests, expected) !== 0) {
      for (let i = 0; i < count; i++) {
        const [at, end] = [i * DIGEST_SIZE_BYTES, (i + 1) * DIGEST_SIZE_BYTES]
        const actual = digests.subarray(at, end)
        if (Buffer.compare(actual, expected.subarray(at, end)) === 0) continue
        dirty.set(first + i)
        if (Buffer.compare(actual, zero) !== 0) displaced.add(actual, first + i)
      }
    }
    bytesRead += Math.min(count * geometry.blockSize, geometry.size - first * geometry.blockSize)
    options.progress({ phase: options.phase, doneBytes: bytesRead, totalBytes: geometry.size })
  }
  return { dirty, displaced, bytesRead }
}

/**
 * What dirty blocks really contain, so that content which only moved is copied and not fetched. It is a hint: the
 * digest is cut to 48 bits, and the block may change before it is used, so whoever copies hashes first. At most
 * MAX_DISPLACED_BLOCKS blocks are kept.
 */
export class DisplacedBlocks {
  readonly #places = new Map<number, number>()

  add(digest: Digest, index: number): void {
    if (this.#places.size < MAX_DISPLACED_BLOCKS) this.#places.set(keyOf(digest), index)
  }

  find(digest: Digest): number | undefined {
    return this.#places.get(keyOf(digest))
  }
}

function keyOf(digest: Digest): number {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).readUIntBE(0, 6)
}
