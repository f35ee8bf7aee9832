import { sameBytes } from '../../protocol/digest.ts'
import { diffTrees } from '../../protocol/hash-tree.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'
import type { TreeFacts, TreeFile } from './tree-file.ts'

type Shape = Pick<TreeFacts, 'size' | 'blockSize'>

/** Whether two trees can be compared page by page. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.size === b.size && a.blockSize === b.blockSize
}

/**
 * Blocks of `to` that differ from `from`, or that `from` does not have. Trees of the same shape are compared from the
 * root down, so that only pages that differ are read. Errors: TREE_CORRUPT, DISK_IO.
 */
export async function changedBlocks(from: TreeFile, to: TreeFile): Promise<RangeSet> {
  const [before, after] = [from.geometry, to.geometry]
  if (before.blockSize !== after.blockSize) return RangeSet.of(0, after.blockCount)
  const runs: Run[] = []
  if (sameShape(before, after)) {
    for await (const run of diffTrees(after, readable(from), readable(to))) runs.push(run)
    return RangeSet.from(runs)
  }
  const common = Math.min(before.blockCount, after.blockCount)
  for (let index = 0; index < common; index++)
    if (!sameBytes(await from.leaf(index), await to.leaf(index))) runs.push([index, index + 1])
  return RangeSet.from([...runs, [common, after.blockCount]])
}

function readable(tree: TreeFile) {
  return { root: tree.root, read: (level: number, index: number) => tree.page(level, index) }
}
