import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ImageDisk } from '../../../node/disk/image-disk.ts'
import type { HoldingChange } from '../../../node/store/block-source.ts'
import { DiskSource } from '../../../node/store/disk-source.ts'
import { HAVE_DELAY_MS, SERVE_READ_BYTES } from '../../../node/store/limits.ts'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf, sameBytes } from '../../../protocol/digest.ts'
import { NO_DIGEST } from '../../../protocol/hash-tree.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { Random } from '../../../tools/lab/random.ts'
import { FaultyDevice } from '../../fakes/faulty-device.ts'
import { getContent } from '../../support/get-content.ts'
import { leavesOf, storedTree } from '../../support/stored-tree.ts'

const BLOCK = 128
const BLOCKS = 24
const random = new Random(6)

/** A disk that holds its image: blocks 4 and 9 are equal, 7 is zeros, 20 is preserved, the last one is partial. */
async function holding(): Promise<{ device: FaultyDevice; source: DiskSource; leaf: (index: number) => Uint8Array }> {
  const content = Buffer.from(random.bytes(BLOCKS * BLOCK - 50))
  content.copy(content, 9 * BLOCK, 4 * BLOCK, 5 * BLOCK)
  content.fill(0, 7 * BLOCK, 8 * BLOCK)
  const leaves = leavesOf(content, BLOCK)
  leaves.set(NO_DIGEST, 20 * 32)
  const image = { size: content.byteLength, blockSize: BLOCK }
  const tree = await storedTree(leaves, image)
  const held = new Bitmap(BLOCKS)
  held.setRange(0, 20)
  held.setRange(21, BLOCKS)
  const device = new FaultyDevice(content)
  const source = new DiskSource({ disk: new ImageDisk(device, image), tree, held })
  return { device, source, leaf: (index) => leaves.subarray(index * 32, index * 32 + 32) }
}

/** Lets the changes of this moment reach the listeners. */
const nextMoment = (): Promise<void> => sleep(2 * HAVE_DELAY_MS)

describe('DiskSource', () => {
  it('gives every held block and every page, padded and proven', async () => {
    const { source, leaf, device } = await holding()
    for (let index = 0; index < BLOCKS; index++) {
      const block = await getContent(source, leaf(index), { level: 0, index })
      if (index === 20) expect(block).toBeUndefined()
      else expect(digestOf(block!)).toEqual(Buffer.from(leaf(index)))
    }
    const { geometry } = source.tree
    for (let level = 1; level <= geometry.levels; level++) {
      for (let index = 0; index < geometry.pagesAt(level); index++) {
        const digest = (await source.tree.digestOf(level, index))!
        expect(digestOf((await getContent(source, digest, { level, index }))!)).toEqual(Buffer.from(digest))
      }
    }
    expect(device.journal).toEqual([])
    expect(
      source.held().equals(
        RangeSet.from([
          [0, 20],
          [21, BLOCKS],
        ]),
      ),
    ).toBe(true)
  })

  it('finds a block by its content when it was expected elsewhere', async () => {
    const { source, leaf } = await holding()
    for (const hint of [
      { level: 0, index: 3 },
      { level: 0, index: 99_999 },
    ]) {
      expect(digestOf((await getContent(source, leaf(11), hint))!)).toEqual(Buffer.from(leaf(11)))
    }
    expect(await getContent(source, digestOf(leaf(11)), { level: 0, index: 11 })).toBeUndefined()
    // Pages are only known by their place.
    expect(await getContent(source, leaf(11), { level: 1, index: 0 })).toBeUndefined()
    expect(await getContent(source, leaf(11), { level: 9, index: 0 })).toBeUndefined()
    expect(source.heldCount).toBe(BLOCKS - 1)
  })

  it('never gives a block that changed: it gives an equal one, or says that the block is lost', async () => {
    const { device, source, leaf } = await holding()
    const changes: HoldingChange[] = []
    source.onChange((change) => changes.push(change))
    device.bytes[4 * BLOCK + 3]! ^= 1
    device.bytes[5 * BLOCK]! ^= 1
    const [four, five] = await Promise.all([4, 5].map((index) => getContent(source, leaf(index), { level: 0, index })))
    expect(digestOf(four!)).toEqual(Buffer.from(leaf(4)))
    expect(five).toBeUndefined()
    await nextMoment()
    const lost = changes.reduce((sum, change) => sum.union(change.lost), RangeSet.empty)
    expect([...lost.values()]).toEqual([4, 5])
    expect([source.held().has(4), source.held().has(5), source.held().has(9)]).toEqual([false, false, true])
    // What is known to be lost is not even read.
    device.unreadable = RangeSet.of(5 * BLOCK, 6 * BLOCK)
    expect(await getContent(source, leaf(5), { level: 0, index: 5 })).toBeUndefined()
  })

  it('does not serve what is lost, though the disk may hold it again', async () => {
    const { source, leaf } = await holding()
    source.lost(4)
    source.lost(9)
    expect(await getContent(source, leaf(4), { level: 0, index: 4 })).toBeUndefined()
    source.gained(9)
    expect(digestOf((await getContent(source, leaf(4), { level: 0, index: 4 }))!)).toEqual(Buffer.from(leaf(4)))
  })

  it('counts a block that cannot be read as lost', async () => {
    const { device, source, leaf } = await holding()
    device.unreadable = RangeSet.of(4 * BLOCK + 10, 4 * BLOCK + 11)
    expect(digestOf((await getContent(source, leaf(4), { level: 0, index: 4 }))!)).toEqual(Buffer.from(leaf(4)))
    device.unreadable = RangeSet.of(0, device.size)
    expect(await getContent(source, leaf(4), { level: 0, index: 4 })).toBeUndefined()
    expect([source.held().has(4), source.held().has(9), source.held().has(5)]).toEqual([false, false, true])
  })

  it('reads neighbours together in the order of the disk, and each block once, for all who ask for it', async () => {
    const { device, source, leaf } = await holding()
    const reads: string[] = []
    const read = device.read.bind(device)
    device.read = async (offset, into) => {
      reads.push(`${offset / BLOCK} ${Math.ceil(into.byteLength / BLOCK)}`)
      await read(offset, into)
    }
    const asked = [23, 3, 12, 2, 3, 21, 1, 22, 12, 7].map((index) => ({ digest: leaf(index), level: 0, index }))
    const got: (Uint8Array | undefined)[] = []
    await source.getMany(asked, (at, content) => {
      expect(got[at]).toBeUndefined()
      got[at] = content
    })
    expect(reads).toEqual(['1 3', '7 1', '12 1', '21 3'])
    for (const [at, { digest }] of asked.entries()) expect(sameBytes(digestOf(got[at]!), digest)).toBe(true)
  })

  it('takes what the page cache has at once, and cuts long reads', async () => {
    const [block, count] = [4096, 600]
    const content = Buffer.from(random.bytes(block * count))
    const leaves = leavesOf(content, block)
    const image = { size: content.byteLength, blockSize: block }
    const tree = await storedTree(leaves, image)
    const held = new Bitmap(count)
    held.setRange(0, count)
    const lengths: number[] = []
    const device = Object.assign(new FaultyDevice(content), {
      readNow: (offset: number, into: Uint8Array) => {
        lengths.push(into.byteLength)
        into.set(content.subarray(offset, offset + into.byteLength))
        return true
      },
      read: () => Promise.reject(new Error('handed to a thread')),
    })
    const source = new DiskSource({ disk: new ImageDisk(device, image), tree, held })
    let delivered = 0
    const asked = Array.from({ length: count }, (_, i) => count - 1 - i).map((index) => ({
      digest: leaves.subarray(index * 32, index * 32 + 32),
      level: 0,
      index,
    }))
    await source.getMany(asked, (at, got) => {
      expect(sameBytes(digestOf(got!), asked[at]!.digest)).toBe(true)
      delivered++
    })
    expect(delivered).toBe(count)
    expect(lengths).toEqual([SERVE_READ_BYTES, SERVE_READ_BYTES, count * block - 2 * SERVE_READ_BYTES])
  })

  it('loses only the block that cannot be read, or changed, of those read together', async () => {
    const { device, source, leaf } = await holding()
    device.unreadable = RangeSet.of(11 * BLOCK + 5, 11 * BLOCK + 6)
    device.bytes[13 * BLOCK]! ^= 1
    const asked = [10, 11, 12, 13, 14].map((index) => ({ digest: leaf(index), level: 0, index }))
    const got: boolean[] = []
    await source.getMany(asked, (at, content) => {
      got[at] = content !== undefined
    })
    expect(got).toEqual([true, false, true, false, true])
    expect([10, 11, 12, 13, 14].map((index) => source.held().has(index))).toEqual(got)
  })

  it('never serves a preserved block, not even by a digest that matches its leaf', async () => {
    const { source, device } = await holding()
    expect(await getContent(source, NO_DIGEST, { level: 0, index: 20 })).toBeUndefined()
    expect(await getContent(source, NO_DIGEST, { level: 0, index: 3 })).toBeUndefined()
    const content = device.bytes.subarray(20 * BLOCK, 21 * BLOCK)
    expect(await getContent(source, digestOf(content), { level: 0, index: 20 })).toBeUndefined()
    expect(source.heldCount).toBe(BLOCKS - 1)
  })

  it('tells the changes of one turn together, as they stand at its end', async () => {
    const { source } = await holding()
    const changes: HoldingChange[] = []
    const stop = source.onChange((change) => changes.push(change))
    source.lost(1)
    source.lost(2)
    source.lost(2)
    source.gained(2)
    source.gained(3)
    await nextMoment()
    source.lost(8)
    await nextMoment()
    expect(changes.map(({ gained, lost }) => [[...gained.values()], [...lost.values()]])).toEqual([
      [[2], [1]],
      [[], [8]],
    ])
    stop()
    source.gained(8)
    await nextMoment()
    expect(changes.length).toBe(2)
  })

  it('gives nothing but the content asked for, whatever happened to the disk', async () => {
    const index = fc.nat(BLOCKS - 1)
    const damage = fc.array(fc.record({ at: fc.nat(BLOCKS * BLOCK - 51), kind: fc.constantFrom('flip', 'bad') }))
    await fc.assert(
      fc.asyncProperty(damage, fc.array(fc.tuple(index, index)), async (faults, asked) => {
        const { device, source, leaf } = await holding()
        const wrong = new Set<number>()
        for (const { at, kind } of faults) {
          if (kind === 'flip') device.bytes[at]! ^= 0x40
          else device.unreadable = device.unreadable.union(RangeSet.of(at, at + 1))
          wrong.add(Math.floor(at / BLOCK))
        }
        for (const [block, hint] of asked) {
          const got = await getContent(source, leaf(block), { level: 0, index: hint })
          if (got !== undefined) expect(sameBytes(digestOf(got), leaf(block))).toBe(true)
          else expect(block === 20 || wrong.has(block)).toBe(true)
        }
      }),
      { numRuns: 60 },
    )
  })
})
