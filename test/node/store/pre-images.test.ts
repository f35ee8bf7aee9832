import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { DirtiedCounts } from '../../../node/store/dirtied-counts.ts'
import { PreImages } from '../../../node/store/pre-images.ts'
import { Stage } from '../../../node/store/stage.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { leavesOf, storedTree } from '../../support/stored-tree.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const BLOCK = 4096
const blockOf = (letter: string): Buffer => Buffer.alloc(BLOCK, letter === '.' ? 0 : letter)
const digest = (letter: string): Uint8Array => digestOf(blockOf(letter))

/** An image by letters (`.` is zeros), the sessions that dirtied it, and the contents that are in the stage already. */
async function imagesOf(letters: string, sessions: readonly number[][], staged: string, capacity: number) {
  const content = Buffer.concat([...letters].map(blockOf))
  const tree = await storedTree(leavesOf(content, BLOCK), { size: content.byteLength, blockSize: BLOCK })
  const directory = join(await temporaryDirectory(), 'stage')
  const counts = await DirtiedCounts.load(directory, { image: 'lab', blockSize: BLOCK })
  for (const session of sessions) counts.count(session)
  const stage = await Stage.open(directory, BLOCK)
  onTestFinished(() => stage.close())
  for (const letter of staged) await stage.add(digest(letter), blockOf(letter))
  const images = new PreImages({ stage, counts, tree, capacity })
  const choose = async (dirty: readonly number[], most = 100): Promise<number[]> => {
    const blocks = new Bitmap(letters.length)
    for (const index of dirty) blocks.set(index)
    return [...(await images.choose(blocks, most)).values()]
  }
  const held = (): string => [...new Set(letters)].filter((letter) => stage.has(digest(letter))).join('')
  return { images, choose, held, stage, directory }
}

describe('pre-images', () => {
  it('are kept of dirty blocks that sessions dirtied, but not of zeros, the oftenest first', async () => {
    const { choose } = await imagesOf('abc.ef', [[0, 1, 2, 3], [1], [2, 1]], '', 100)
    expect(await choose([0, 1, 2, 3, 5])).toEqual([0, 1, 2])
    expect(await choose([0, 1, 2, 3, 5], 2)).toEqual([1, 2])
    expect(await choose([5])).toEqual([])
  })

  it('make room for what is dirtied more often, but not at the cost of what is dirty now', async () => {
    const sessions = [[0, 1, 2], [4, 5], [4, 5], [2]]
    // 0 and 1 are the rarest; a is needed now, as block 3 has it as well.
    const { choose, held } = await imagesOf('abcaefgh', [...sessions, [3]], 'abc', 3)
    expect(await choose([3, 4, 5])).toEqual([3, 4])
    expect(held()).toBe('ac')
    // Nothing is dropped for what was dirtied more rarely.
    const other = await imagesOf('abcdef', [[3], [0, 1, 2], [0, 1, 2]], 'abc', 3)
    expect(await other.choose([3])).toEqual([])
    expect(other.held()).toBe('abc')
  })

  it('are worth most where sessions wrote oftenest', async () => {
    const { images } = await imagesOf('abc.e', [[0, 3], [1, 4], [1]], 'a', 100)
    const hex = (letter: string): string => Buffer.from(digest(letter)).toString('hex')
    expect(await images.worthMost(2)).toEqual(new Set([hex('b'), hex('e')]))
    const missing: number[] = []
    for await (const { index } of images.missing()) missing.push(index)
    expect(missing).toEqual([1, 4])
  })
})

describe('the stage that is put in order', () => {
  it('moves what it keeps together and gives the room back', async () => {
    const { stage, held, directory } = await imagesOf('abcdefgh', [], 'abcdefgh', 100)
    await stage.flush()
    for (const letter of 'acdfg') expect(await stage.drop(digest(letter))).toBe(true)
    expect(await stage.drop(digest('a'))).toBe(false)
    await stage.compact()
    expect(held()).toBe('beh')
    expect((await stat(join(directory, 'blocks'))).size).toBe(3 * BLOCK)
    expect(await Stage.peek(directory)).toEqual({ blocks: 3, bytes: 3 * BLOCK })
    const again = await Stage.open(directory, BLOCK)
    for (const letter of 'beh') expect(await again.read(digest(letter))).toEqual(blockOf(letter))
    await again.add(digest('a'), blockOf('a'))
    await again.close()
    expect((await stat(join(directory, 'blocks'))).size).toBe(4 * BLOCK)
  })

  it('has every block after a crash at any step of the move', async () => {
    const { stage, directory } = await imagesOf('abcdefgh', [], 'abcdefgh', 100)
    await stage.flush()
    for (const letter of 'abc') await stage.drop(digest(letter))
    await stage.flush()
    const now = (): Promise<Buffer[]> => Promise.all(['blocks', 'index'].map((name) => readFile(join(directory, name))))
    const [blocks, index] = await now()
    await stage.compact()
    const [movedBlocks, movedIndex] = await now()
    // Data is written first, then the index, which then names some blocks twice; the index is cut off before the data.
    const written = Buffer.concat([movedBlocks!, blocks!.subarray(movedBlocks!.length)])
    const named = Buffer.concat([movedIndex!, index!.subarray(movedIndex!.length)])
    expect(named).not.toEqual(index)
    for (const [data, names] of [
      [blocks, index],
      [written, index],
      [written, named],
      [written, movedIndex],
      [movedBlocks, movedIndex],
    ] as const) {
      await writeFile(join(directory, 'blocks'), data!)
      await writeFile(join(directory, 'index'), names!)
      const again = await Stage.open(directory, BLOCK)
      for (const letter of 'defgh') expect(await again.read(digest(letter))).toEqual(blockOf(letter))
      expect(again.count).toBe(5)
      await again.close()
    }
  })
})
