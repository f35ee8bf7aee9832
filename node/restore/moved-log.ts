import { isMeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { byteCount } from '../../protocol/units.ts'
import { changedBlocks, sameShape } from '../store/changed-blocks.ts'
import type { TreeFacts, TreeFile } from '../store/tree-file.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { WriteLog } from '../writelog/write-log.ts'
import { DirtyBlocks, granulesOf } from './dirty-blocks.ts'

interface MovedLog {
  /** What may differ from the release, in granules: what is marked, and the blocks in which the two releases differ. */
  readonly dirty: RangeSet
  /** Blocks in which the releases differ, and nothing is marked: what stands there is the other release's. */
  readonly alike: RangeSet
}

/**
 * What may differ from a release by a log that is kept against another one. Nothing is changed by this; the log begins anew
 * with it (docs/DURABILITY.md, "A new release").
 * Undefined if the other release cannot be compared, because its tree is not here or damaged, or it has other blocks.
 */
export async function movedLog(
  log: WriteLog,
  other: TreeFacts | undefined,
  tree: TreeFile,
  trees: TreeStore,
): Promise<MovedLog | undefined> {
  if (other === undefined || !sameShape(other, tree.geometry) || !(await trees.has(other))) return undefined
  const from = await trees.open(other)
  try {
    const changed = await changedBlocks(from, tree)
    const { blockSize, size, blockCount } = tree.geometry
    const marked = await log.dirty()
    const image = { size: byteCount(size), blockSize: byteCount(blockSize), preserve: RangeSet.empty }
    const { blocks } = DirtyBlocks.fromLog(marked, log.granuleSize, image)
    return {
      dirty: marked.union(granulesOf(changed, log.granuleSize, blockSize)),
      alike: changed.intersect(RangeSet.of(0, blockCount)).subtract(blocks.toRanges()),
    }
  } catch (error) {
    // Which of the two trees is damaged shows when the wanted one is used.
    if (isMeshError(error, 'TREE_CORRUPT')) return undefined
    throw error
  } finally {
    await from.close()
  }
}
