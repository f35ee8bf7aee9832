import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LocationIndex } from '../../../node/store/location-index.ts'
import { toHex } from '../../../protocol/digest.ts'
import { NO_DIGEST } from '../../../protocol/hash-tree.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { Random } from '../../../tools/lab/random.ts'
import { storedTree } from '../../support/stored-tree.ts'

const BLOCK = 4096

/** Few digests that share beginnings of every length, so that buckets and tags are the same for different ones. */
const digest = fc
  .record({ head: fc.constantFrom(0, 1, 255), second: fc.constantFrom(0, 7), last: fc.nat(3) })
  .map(({ head, second, last }) => {
    const bytes = new Uint8Array(32)
    bytes.fill(head, 0, 4)
    bytes.fill(second, 4, 8)
    bytes[31] = last
    return bytes
  })

async function found(index: LocationIndex, wanted: Uint8Array): Promise<number[]> {
  const blocks: number[] = []
  for await (const block of index.find(wanted)) blocks.push(block)
  return blocks
}

describe('LocationIndex', () => {
  it('finds what a map finds, in ascending order', async () => {
    const leaf = fc.oneof({ weight: 5, arbitrary: digest }, { weight: 1, arbitrary: fc.constant(NO_DIGEST) })
    const leaves = fc.array(leaf, { minLength: 1, maxLength: 600 })
    const subset = fc.option(fc.tuple(fc.nat(600), fc.nat(600)), { nil: undefined })
    await fc.assert(
      fc.asyncProperty(leaves, subset, digest, async (digests, run, unknown) => {
        const all = RangeSet.of(0, digests.length)
        const blocks = run === undefined ? all : all.intersect(RangeSet.of(Math.min(...run), Math.max(...run)))
        const image = { size: digests.length * BLOCK, blockSize: BLOCK }
        const tree = await storedTree(Buffer.concat(digests), image)
        const index = await LocationIndex.build(tree, run === undefined ? undefined : blocks)
        const map = new Map<string, number[]>()
        for (const block of blocks.values()) {
          const key = toHex(digests[block]!)
          map.set(key, [...(map.get(key) ?? []), block])
        }
        map.set(toHex(NO_DIGEST), [])
        for (const wanted of [...digests, unknown, NO_DIGEST]) {
          expect(await found(index, wanted)).toEqual(map.get(toHex(wanted)) ?? [])
        }
      }),
      { numRuns: 40 },
    )
  })

  it('finds each of many blocks, reading hardly a leaf in vain', async () => {
    const count = 100_000
    const leaves = new Random(5).bytes(count * 32)
    const tree = await storedTree(leaves, { size: count * BLOCK, blockSize: BLOCK })
    const index = await LocationIndex.build(tree)
    let read = 0
    const leafOf = tree.leaf.bind(tree)
    tree.leaf = (block) => {
      read++
      return leafOf(block)
    }
    for (let block = 0; block < count; block += 97) {
      expect(await found(index, leaves.subarray(block * 32, block * 32 + 32))).toEqual([block])
    }
    // A tag of 15 bits beside 17 bits of index, and 8 to 16 blocks a bucket.
    expect(read).toBeLessThan((count / 97) * 1.05)
  })
})
