import { isMeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { byteCount } from '../../protocol/units.ts'
import { changedBlocks, sameShape } from '../store/changed-blocks.ts'
import type { TreeFacts, TreeFile } from '../store/tree-file.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { WriteLog } from '../writelog/write-log.ts'
import { DirtyBlocks, unitsOf } from './dirty-blocks.ts'

interface MovedLog {
  /**
   * What may differ from the release, in units of the log: marked units, and blocks that differ between the two
   * releases.
   */
  readonly dirty: RangeSet
  /** Blocks that differ between the releases and are not marked: the other release's content stands there. */
  readonly alike: RangeSet
}

/**
 * Says what may differ from a release according to a log that is kept against another one. Nothing is changed by this;
 * the caller then begins the log anew (docs/DURABILITY.md, "A new release"). Undefined if the other release cannot be
 * compared: its tree is not here, is damaged, or has blocks of another size.
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
    const { blocks } = DirtyBlocks.fromLog(marked, log.unitSize, image)
    return {
      dirty: marked.union(unitsOf(changed, log.unitSize, blockSize)),
      alike: changed.intersect(RangeSet.of(0, blockCount)).subtract(blocks.toRanges()),
    }
  } catch (error) {
    // Either tree may be the damaged one. If it is the wanted one, its next use will report that.
    if (isMeshError(error, 'TREE_CORRUPT')) return undefined
    throw error
  } finally {
    await from.close()
  }
}
