import { isMeshError } from '../../protocol/errors.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import { changedBlocks, sameShape } from '../store/changed-blocks.ts'
import type { TreeFacts, TreeFile } from '../store/tree-file.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { WriteLog } from '../writelog/write-log.ts'
import { granulesOf } from './dirty-blocks.ts'

/**
 * What may differ from a release, in granules, by a log that is kept against another one: what is marked, and the blocks in
 * which the two releases differ. Nothing is changed by this; the log begins anew with it (docs/DURABILITY.md, "A new release").
 * Undefined if the other release cannot be compared, because its tree is not here or damaged, or it has other blocks.
 */
export async function movedLog(
  log: WriteLog,
  other: TreeFacts | undefined,
  tree: TreeFile,
  trees: TreeStore,
): Promise<RangeSet | undefined> {
  if (other === undefined || !sameShape(other, tree.geometry) || !(await trees.has(other))) return undefined
  const from = await trees.open(other)
  try {
    const changed = await changedBlocks(from, tree)
    return (await log.dirty()).union(granulesOf(changed, log.granuleSize, tree.geometry.blockSize))
  } catch (error) {
    // Which of the two trees is damaged shows when the wanted one is used.
    if (isMeshError(error, 'TREE_CORRUPT')) return undefined
    throw error
  } finally {
    await from.close()
  }
}
