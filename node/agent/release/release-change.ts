import { setImmediate as nextTurn } from 'node:timers/promises'
import { DIGEST_SIZE_BYTES } from '../../../protocol/constants.ts'
import { zeroDigest } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { isNoDigest } from '../../../protocol/hash-tree.ts'
import type { TreeFacts, TreeFile } from '../../store/tree-file.ts'
import type { TreeStore } from '../../store/tree-store.ts'
import { LOOKED_UP_AT_ONCE } from './limits.ts'

/** How the blocks of a release differ from those of the release before. Preserved blocks do not count. */
export interface BlockChange {
  /** Blocks of the new release, and those that the old one does not have in their place. */
  readonly total: number
  readonly changed: number
  /** Blocks of the old release with content, that is not zeros; how many of them become zeros; how many change at all. */
  readonly filled: number
  readonly zeroed: number
  readonly lost: number
}

/** A hash tree, and where it is. */
interface StoredTree {
  readonly facts: TreeFacts
  readonly trees: TreeStore
}

/**
 * Compares two releases by their hash trees. Undefined if their blocks have different sizes, or the tree of the old one is not
 * here, as on a master that was brought back from a copy. Errors: TREE_CORRUPT of the new one, DISK_IO.
 */
export async function blockChange(before: StoredTree, after: StoredTree): Promise<BlockChange | undefined> {
  if (before.facts.blockSize !== after.facts.blockSize || !(await before.trees.has(before.facts))) return undefined
  await using stack = new AsyncDisposableStack()
  try {
    const from = stack.adopt(await before.trees.open(before.facts), (it) => it.close())
    const to = stack.adopt(await after.trees.open(after.facts), (it) => it.close())
    return await compare(from, to)
  } catch (error) {
    if (isMeshError(error, 'TREE_CORRUPT')) return undefined
    throw error
  }
}

async function compare(from: TreeFile, to: TreeFile): Promise<BlockChange> {
  const zero = zeroDigest(to.geometry.blockSize)
  const change = { total: 0, changed: 0, filled: 0, zeroed: 0, lost: 0 }
  const [old, now] = [from.geometry.blockCount, to.geometry.blockCount]
  for (let first = 0; first < Math.max(old, now); first += LOOKED_UP_AT_ONCE) {
    await nextTurn()
    const had = await leavesOf(from, first)
    const has = await leavesOf(to, first)
    for (let i = 0; i < LOOKED_UP_AT_ONCE; i++) {
      const [before, after] = [had[i], has[i]]
      // A preserved block is no content of either.
      const isThere = after !== undefined && !isNoDigest(after)
      const wasFilled = before !== undefined && !isNoDigest(before) && !before.equals(zero)
      const differs = isThere && before?.equals(after) !== true
      if (isThere) change.total++
      if (differs) change.changed++
      if (wasFilled) change.filled++
      if (wasFilled && differs && after?.equals(zero)) change.zeroed++
      if (wasFilled && (differs || after === undefined)) change.lost++
    }
  }
  return change
}

async function leavesOf(tree: TreeFile, first: number): Promise<Buffer[]> {
  const count = Math.max(0, Math.min(LOOKED_UP_AT_ONCE, tree.geometry.blockCount - first))
  const packed = count === 0 ? Buffer.alloc(0) : Buffer.from(await tree.leaves(first, count))
  return Array.from({ length: count }, (_, i) => packed.subarray(i * DIGEST_SIZE_BYTES, (i + 1) * DIGEST_SIZE_BYTES))
}
