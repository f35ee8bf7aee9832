import { DIGEST_SIZE_BYTES, GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { sameBytes } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import { countGranules } from '../../protocol/granules.ts'
import { TreeBuilder, TreeGeometry } from '../../protocol/hash-tree.ts'
import type { Manifest } from '../../protocol/manifest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { encodeRepeats } from '../../protocol/repeats.ts'
import type { HashPool } from '../disk/hash-pool.ts'
import type { ReportProgress } from '../disk/progress.ts'
import { RepeatFinder } from '../disk/repeat-finder.ts'
import type { TreeFacts } from './tree-file.ts'
import type { TreeStore } from './tree-store.ts'

/**
 * Hashes a disk without its preserved blocks, and stores the hash tree and the list of repeats durably. Errors:
 * DISK_IO, DISK_FULL, INTERRUPTED.
 */
export async function buildTree(options: {
  path: string
  size: number
  blockSize: number
  preserve: RangeSet
  pool: HashPool
  trees: TreeStore
  progress: ReportProgress
  signal: AbortSignal
}): Promise<TreeFacts> {
  const geometry = new TreeGeometry(options.size, options.blockSize)
  const writer = await options.trees.builder(geometry)
  // With blocks of one granule the digests of blocks show every repeat.
  const granular = options.blockSize > GRANULE_SIZE_BYTES
  const finder = granular ? new RepeatFinder(Math.floor(options.size / GRANULE_SIZE_BYTES)) : undefined
  try {
    let pages: { level: number; index: number; page: Uint8Array }[] = []
    const builder = new TreeBuilder(geometry, (level, index, page) => pages.push({ level, index, page }))
    let next = 0
    const skipTo = (block: number): void => {
      // Preserved blocks have no digest: 32 zero bytes.
      if (block > next) builder.append(new Uint8Array((block - next) * DIGEST_SIZE_BYTES))
      next = block
    }
    for await (const { first, digests, anchors } of options.pool.scan(options.path, geometry, {
      skip: options.preserve,
      ...(finder === undefined ? {} : { anchorBits: finder.anchorBits }),
      signal: options.signal,
    })) {
      skipTo(first)
      if (anchors !== undefined) finder?.take(first * countGranules(options.blockSize), anchors)
      builder.append(digests)
      next += digests.byteLength / DIGEST_SIZE_BYTES
      for (const { level, index, page } of pages) await writer.write(level, index, page)
      pages = []
      const doneBytes = Math.min(next * options.blockSize, options.size)
      options.progress({ phase: 'hash', doneBytes, totalBytes: options.size })
    }
    skipTo(geometry.blockCount)
    for (const { level, index, page } of pages) await writer.write(level, index, page)
    const repeats = finder === undefined ? {} : await keepRepeats(finder, options)
    const facts = { root: builder.finish(), size: options.size, blockSize: options.blockSize, ...repeats }
    await writer.commit(options.trees.pathOf(facts), facts.root)
    return facts
  } catch (error) {
    await writer.abandon({ keep: false }).catch(() => undefined)
    throw error
  }
}

/** Stores the list of repeats durably, if there are any. */
async function keepRepeats(
  finder: RepeatFinder,
  options: Parameters<typeof buildTree>[0],
): Promise<Pick<TreeFacts, 'repeats'>> {
  const found = await finder.find(options.path, options, options)
  if (found.length === 0) return {}
  return { repeats: await options.trees.keepRepeats(encodeRepeats(found, options.blockSize)) }
}

/** Whether a release already has this content. */
export function sameContent(manifest: Manifest, tree: TreeFacts, preserve: RangeSet): boolean {
  return (
    sameBytes(manifest.root, tree.root) &&
    manifest.size === tree.size &&
    manifest.blockSize === tree.blockSize &&
    manifest.preserve.equals(preserve)
  )
}

/** Ranges `OFFSET:LENGTH` in bytes as blocks. Errors: RANGE_INVALID. */
export function preservedBlocks(
  ranges: readonly { offset: number; length: number }[],
  size: number,
  blockSize: number,
): RangeSet {
  return RangeSet.from(
    ranges.map(({ offset, length }): [number, number] => {
      const end = offset + length
      // Only the last range may end within a block, because the disk may end there.
      const whole = offset % blockSize === 0 && (length % blockSize === 0 || end === size)
      if (!whole || length === 0 || end > size) {
        throw new MeshError(
          'RANGE_INVALID',
          `${offset}:${length} is no range of whole ${blockSize}-byte blocks of the disk`,
        )
      }
      return [offset / blockSize, Math.ceil(end / blockSize)]
    }),
  )
}
