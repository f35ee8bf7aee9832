import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DirtiedCounts } from '../../../node/store/dirtied-counts.ts'
import { COUNT_MOST, COUNT_OF_ONE, DIRTIED_MAX_BLOCKS } from '../../../node/store/limits.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const IMAGE = { image: 'lab', blockSize: 65536 }

async function counted(...sessions: readonly number[][]): Promise<{ directory: string; counts: DirtiedCounts }> {
  const directory = join(await temporaryDirectory(), 'stage')
  const counts = await DirtiedCounts.load(directory, IMAGE)
  for (const session of sessions) counts.count(session)
  return { directory, counts }
}

describe('the count of what sessions dirtied', () => {
  it('orders blocks by how often and how lately they were dirtied, also after it was read again', async () => {
    const { directory, counts } = await counted([5, 6, 7], [5, 9], [5, 6])
    expect(counts.oftenestFirst()).toEqual([5, 6, 9, 7])
    expect(counts.score(9)).toBe((COUNT_OF_ONE * 15) / 16)
    await counts.save()
    const again = await DirtiedCounts.load(directory, IMAGE)
    expect(again.oftenestFirst()).toEqual([5, 6, 9, 7])
    expect([5, 6, 7, 9, 8].map((index) => again.score(index))).toEqual([5, 6, 7, 9, 8].map((i) => counts.score(i)))
  })

  it('is short where neighbours were dirtied alike', async () => {
    const { directory, counts } = await counted([...Array(5000).keys()], [2500])
    await counts.save()
    const file = await readFile(join(directory, 'dirtied'), 'utf8')
    expect(JSON.parse(file)).toEqual({
      format: 1,
      ...IMAGE,
      runs: [
        [0, 2500, 3840],
        [2500, 1, 7936],
        [2501, 2499, 3840],
      ],
    })
    expect((await DirtiedCounts.load(directory, IMAGE)).size).toBe(5000)
  })

  it('forgets what was dirtied once long ago, never counts too high, and is bounded', async () => {
    const { counts } = await counted([1], ...Array<number[]>(43).fill([2]))
    expect(counts.oftenestFirst()).toEqual([2])
    for (let i = 0; i < 100; i++) counts.count([3])
    expect(counts.score(3)).toBeLessThanOrEqual(COUNT_MOST)
    expect(counts.score(3)).toBeGreaterThan(15 * COUNT_OF_ONE)
    counts.count(Array(DIRTIED_MAX_BLOCKS + 10).keys())
    expect(counts.size).toBe(DIRTIED_MAX_BLOCKS)
    expect(counts.has(3)).toBe(true)
  })

  it('is empty where the file is missing, damaged, newer, or of another image', async () => {
    const { directory, counts } = await counted([1, 2])
    await counts.save()
    const path = join(directory, 'dirtied')
    const size = async (image = IMAGE): Promise<number> => (await DirtiedCounts.load(directory, image)).size
    expect(await size({ ...IMAGE, image: 'other' })).toBe(0)
    expect(await size({ ...IMAGE, blockSize: 4096 })).toBe(0)
    const good = JSON.parse(await readFile(path, 'utf8')) as object
    for (const [wrong, expected] of [
      [{ ...good, kept: [1] }, 2],
      [{ ...good, format: 2 }, 0],
      [{ ...good, runs: [[1, 'x', 3]] }, 0],
      [{ ...good, runs: [[0, 2 ** 50, 300]] }, DIRTIED_MAX_BLOCKS],
    ] as const) {
      await writeFile(path, JSON.stringify(wrong))
      expect(await size(), JSON.stringify(wrong)).toBe(expected)
    }
    await writeFile(path, '{"format":1,"image":"la')
    expect(await size()).toBe(0)
  })
})
