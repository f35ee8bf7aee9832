import { open, rm } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { movedLog } from '../../../node/restore/moved-log.ts'
import type { TreeFacts, TreeFile } from '../../../node/store/tree-file.ts'
import { TreeStore } from '../../../node/store/tree-store.ts'
import { ScanLog } from '../../../node/writelog/scan-log.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { leavesOf, storedTree } from '../../support/stored-tree.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const BLOCK = 8192

/** Images of one letter a block, whose trees are stored; a log that calls the granules 3, 4 and 100 dirty. */
async function fixture(before: string, after: string) {
  const directory = await temporaryDirectory()
  const trees = new TreeStore(directory)
  const store = async (letters: string, blockSize = BLOCK): Promise<TreeFile> => {
    const content = Buffer.concat([...letters].map((letter) => Buffer.alloc(BLOCK, letter)))
    const image = { size: content.byteLength, blockSize }
    const leaves = leavesOf(content, blockSize)
    const { root } = await storedTree(leaves, image)
    return storedTree(leaves, image, trees.pathOf({ root, ...image }))
  }
  const log = new ScanLog()
  await log.mark(
    RangeSet.from([
      [3, 5],
      [100, 101],
    ]),
  )
  const factsOf = ({ root, geometry: { size, blockSize } }: TreeFile): TreeFacts => ({ root, size, blockSize })
  return { trees, log, store, factsOf, from: await store(before), to: await store(after) }
}

describe('a log that moves to another release', () => {
  it('calls dirty what was marked, and the blocks that are other ones, whole', async () => {
    const { trees, log, from, to, factsOf } = await fixture('abcdefgh', 'abXdefYZ')
    const moved = await movedLog(log, factsOf(from), to, trees)
    // Two granules a block.
    expect([...moved!.dirty.runs()]).toEqual([
      [3, 6],
      [12, 16],
      [100, 101],
    ])
    // And back.
    expect((await movedLog(log, factsOf(to), from, trees))!.dirty.equals(moved!.dirty)).toBe(true)
    // Block 2 is marked, too.
    expect([...moved!.alike.values()]).toEqual([6, 7])
    // Nothing of the log has changed.
    expect((await log.dirty()).count).toBe(3)
  })

  it('is not moved from a release that is not known, has other blocks or another size, or whose tree is gone', async () => {
    const { trees, log, from, to, factsOf, store } = await fixture('abcdefgh', 'abXdefgh')
    expect(await movedLog(log, undefined, to, trees)).toBeUndefined()
    expect(await movedLog(log, factsOf(await store('abcdefgh', BLOCK / 2)), to, trees)).toBeUndefined()
    expect(await movedLog(log, factsOf(await store('abcdefg')), to, trees)).toBeUndefined()
    await rm(trees.pathOf(factsOf(from)))
    expect(await movedLog(log, factsOf(from), to, trees)).toBeUndefined()
  })

  it('is not moved by a tree that is damaged', async () => {
    const { trees, log, from, to, factsOf } = await fixture('abcdefgh', 'abXdefgh')
    const file = await open(trees.pathOf(factsOf(from)), 'r+')
    await file.write('wrong', 40)
    await file.close()
    expect(await movedLog(log, factsOf(from), to, trees)).toBeUndefined()
  })
})
