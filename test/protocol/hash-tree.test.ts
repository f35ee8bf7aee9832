import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { digestOf, sameBytes, toHex } from '../../protocol/digest.ts'
import { diffTrees, pageDigest, TreeBuilder, TreeGeometry } from '../../protocol/hash-tree.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { Random } from '../../tools/lab/random.ts'
import { naiveTree } from '../support/naive-tree.ts'

/** The smallest block size the geometry takes, so that small data has many levels: two digests a page. */
const TINY = 64

function buildTree(data: Uint8Array, blockSize: number, step = 3) {
  const geometry = new TreeGeometry(data.byteLength, blockSize)
  const file = Buffer.alloc(geometry.fileSize)
  const builder = new TreeBuilder(geometry, (level, index, page) => file.set(page, geometry.pageOffset(level, index)))
  for (let first = 0; first < geometry.blockCount; first += step) {
    const digests: Uint8Array[] = []
    for (let i = first; i < Math.min(first + step, geometry.blockCount); i++) {
      const block = Buffer.alloc(blockSize)
      block.set(data.subarray(i * blockSize, (i + 1) * blockSize))
      digests.push(digestOf(block))
    }
    builder.append(Buffer.concat(digests))
  }
  return { geometry, root: builder.finish(), file }
}

const page = (tree: ReturnType<typeof buildTree>, level: number, index: number): Uint8Array => {
  const offset = tree.geometry.pageOffset(level, index)
  return tree.file.subarray(offset, offset + tree.geometry.blockSize)
}

describe('TreeBuilder', () => {
  it('gives the tree of the plain definition, top level first in the file', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 40 * TINY }),
        fc.integer({ min: 1, max: 9 }),
        (data, step) => {
          const tree = buildTree(data, TINY, step)
          const naive = naiveTree(data, TINY)
          expect(toHex(tree.root)).toBe(naive.root.toString('hex'))
          expect(tree.geometry.levels).toBe(naive.levels.length)
          expect(tree.file.equals(Buffer.concat(naive.levels.toReversed().flat()))).toBe(true)
        },
      ),
    )
  })

  it('keeps every digest where the geometry says', () => {
    const data = new Random(1).bytes(23 * TINY + 5)
    const tree = buildTree(data, TINY)
    for (let index = 0; index < tree.geometry.blockCount; index++) {
      const { level, index: at, slot } = tree.geometry.parent(0, index)!
      const block = Buffer.alloc(TINY)
      block.set(data.subarray(index * TINY, (index + 1) * TINY))
      expect(sameBytes(pageDigest(page(tree, level, at), slot), digestOf(block))).toBe(true)
    }
    expect(tree.geometry.parent(tree.geometry.levels, 0)).toBeUndefined()
  })

  it('refuses too few and too many digests, and an empty image', () => {
    const geometry = new TreeGeometry(3 * TINY, TINY)
    const builder = new TreeBuilder(geometry, () => undefined)
    builder.append(new Uint8Array(64))
    expect(() => builder.finish()).toThrow()
    expect(() => builder.append(new Uint8Array(64))).toThrow()
    expect(() => new TreeGeometry(0, TINY)).toThrow()
  })

  it('gives the golden roots', () => {
    const vectors = JSON.parse(readFileSync(join(import.meta.dirname, '../vectors/hash-tree.json'), 'utf8')) as {
      trees: { seed: number; size: number; blockSize: number; root: string; treeSha256: string }[]
    }
    expect(vectors.trees.length).toBeGreaterThan(5)
    for (const { seed, size, blockSize, root, treeSha256 } of vectors.trees) {
      const tree = buildTree(new Random(seed).bytes(size), blockSize, 1000)
      expect({ size, root: toHex(tree.root) }).toEqual({ size, root })
      expect(toHex(digestOf(tree.file))).toBe(treeSha256)
    }
  })
})

describe('diffTrees', () => {
  const changes = fc.array(fc.nat(150), { maxLength: 8 })

  it('names exactly the blocks that differ', async () => {
    await fc.assert(
      fc.asyncProperty(changes, async (blocks) => {
        const data = new Random(2).bytes(151 * TINY)
        const changed = Buffer.from(data)
        for (const block of blocks) changed[block * TINY]! ^= 1
        // A block named twice is changed back.
        const expected = RangeSet.from(
          [...new Set(blocks)].filter((b) => changed[b * TINY] !== data[b * TINY]).map((b) => [b, b + 1]),
        )
        const [a, b] = [buildTree(data, TINY), buildTree(changed, TINY)]
        const readers = [a, b].map((tree) => ({
          root: tree.root,
          read: async (l: number, i: number) => page(tree, l, i),
        }))
        const found = await Array.fromAsync(diffTrees(a.geometry, readers[0]!, readers[1]!))
        expect(RangeSet.from(found).equals(expected)).toBe(true)
        expect(found.length).toBe(expected.runCount)
      }),
    )
  })

  it('reads no more pages than one path for one changed block', async () => {
    const data = new Random(3).bytes(1000 * TINY)
    const changed = Buffer.from(data)
    changed[700 * TINY]! ^= 1
    let reads = 0
    const readers = [buildTree(data, TINY), buildTree(changed, TINY)].map((tree) => ({
      root: tree.root,
      read: async (level: number, index: number) => {
        reads++
        return page(tree, level, index)
      },
    }))
    const geometry = new TreeGeometry(data.byteLength, TINY)
    expect(await Array.fromAsync(diffTrees(geometry, readers[0]!, readers[1]!))).toEqual([[700, 701]])
    expect(reads).toBe(2 * geometry.levels)
  })
})
