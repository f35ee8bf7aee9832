import { readFile, writeFile } from 'node:fs/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDevice } from '../../../node/disk/file-device.ts'
import { HashPool } from '../../../node/disk/hash-pool.ts'
import { restore } from '../../../node/restore/restore.ts'
import { buildTree } from '../../../node/store/build-tree.ts'
import type { TreeFacts } from '../../../node/store/tree-file.ts'
import { TreeStore } from '../../../node/store/tree-store.ts'
import { markVerified } from '../../../node/trust/verified-manifest.ts'
import { ScanLog } from '../../../node/writelog/scan-log.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { encodeRepeats, type Repeat } from '../../../protocol/repeats.ts'
import { byteCount } from '../../../protocol/units.ts'
import { Random } from '../../../tools/lab/random.ts'
import { ImageFetcher } from '../../support/image-fetcher.ts'
import { testSeed } from '../../support/seed.ts'
import { makeManifest } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const GRANULE = 4096
/** Four granules a block. */
const BLOCK = 4 * GRANULE
const BLOCKS = 400
const GRANULES = 4 * BLOCKS
const { signal } = new AbortController()

describe('a restore that knows of repeats', () => {
  const random = new Random(testSeed('repeated blocks'))
  const pool = new HashPool({ workers: 1 })
  const dir = useTempDir()
  let trees: TreeStore

  beforeAll(() => {
    trees = new TreeStore(dir())
  })
  afterAll(() => pool.close())

  async function restored(image: Buffer, disk: Buffer, repeats: readonly Repeat[] | undefined) {
    const [path, target] = [dir('image'), dir('disk')]
    await writeFile(path, image)
    await writeFile(target, disk)
    const size = image.byteLength
    const options = { path, size, blockSize: BLOCK, preserve: RangeSet.empty, pool, trees, progress: () => undefined }
    const facts: TreeFacts = await buildTree({ ...options, signal })
    const list = repeats === undefined ? facts.repeats : await trees.keepRepeats(encodeRepeats(repeats, BLOCK))
    const manifest = makeManifest({
      size: byteCount(size),
      blockSize: byteCount(BLOCK),
      root: facts.root,
      ...(list === undefined ? {} : { repeats: list }),
    })
    const fetcher = new ImageFetcher(image)
    const device = await openDevice(target, { writable: true })
    try {
      const receipt = await restore({
        manifest: markVerified(manifest),
        target: { device, log: new ScanLog() },
        sources: { trees, fetcher: async () => fetcher },
        steps: { beforeWriting: async () => undefined },
        pool,
        names: { machine: 'pc1', nameOf: (id) => id },
        progress: () => undefined,
        signal,
        random: () => random.next(),
      })
      expect((await readFile(target)).equals(image)).toBe(true)
      const { dirty, zero, local, copied, fetched } = receipt.blocks
      expect(zero + local + copied + fetched).toBe(dirty)
      expect(receipt.log).not.toHaveProperty('missed')
      return { receipt, received: fetcher.received }
    } finally {
      await device.close()
    }
  }

  const run = fc.record({
    to: fc.nat(GRANULES - 1),
    from: fc.nat(GRANULES - 1),
    count: fc.integer({ min: 1, max: 320 }),
  })
  /** In order, apart, and from places before them, as a list has to be. */
  const listOf = (runs: readonly Repeat[]): Repeat[] => {
    let end = 0
    return runs
      .map(({ to, from, count }) => ({ to, from, count: Math.min(count, GRANULES - to) }))
      .sort((a, b) => a.to - b.to)
      .filter(({ to, from, count }) => {
        if (to < end || from + count > to) return false
        end = to + count
        return true
      })
  }

  it('puts together what repeats, whatever else repeats that, and fetches no more than without', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(run, { maxLength: 12 }), fc.array(fc.nat(BLOCKS - 1)), async (runs, right) => {
        const image = Buffer.from(random.bytes(BLOCKS * BLOCK))
        const repeats = listOf(runs)
        for (const { to, from, count } of repeats)
          image.copy(image, to * GRANULE, from * GRANULE, (from + count) * GRANULE)
        const disk = Buffer.from(random.bytes(BLOCKS * BLOCK))
        for (const index of right) image.copy(disk, index * BLOCK, index * BLOCK, (index + 1) * BLOCK)
        const { received } = await restored(image, disk, repeats)
        const without = (BLOCKS - new Set(right).size) * BLOCK
        expect(received).toBeLessThanOrEqual(without)
      }),
      { numRuns: 25 },
    )
  })

  it('fetches nothing of a block that is all repeats', async () => {
    const image = Buffer.from(random.bytes(BLOCKS * BLOCK))
    image.copy(image, 800 * GRANULE, 1 * GRANULE, 161 * GRANULE)
    const { receipt, received } = await restored(image, Buffer.alloc(BLOCKS * BLOCK), undefined)
    expect(received).toBe((GRANULES - 160) * GRANULE)
    expect(receipt.blocks).toMatchObject({ local: 0, copied: 40 })
  })

  it('does not come back for little, in however many pieces', async () => {
    const image = Buffer.from(random.bytes(BLOCKS * BLOCK))
    for (const piece of [0, 1, 2, 3, 4])
      image.copy(image, (800 + 50 * piece) * GRANULE, (1 + 40 * piece) * GRANULE, (21 + 40 * piece) * GRANULE)
    const repeats = [0, 1, 2, 3, 4].map((piece) => ({ to: 800 + 50 * piece, from: 1 + 40 * piece, count: 20 }))
    const { received } = await restored(image, Buffer.alloc(BLOCKS * BLOCK), repeats)
    expect(received).toBe(GRANULES * GRANULE)
  })

  it('writes the right blocks although the list lies', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(run, { minLength: 1, maxLength: 12 }), async (runs) => {
        const image = Buffer.from(random.bytes(BLOCKS * BLOCK))
        await restored(image, Buffer.alloc(BLOCKS * BLOCK), listOf(runs))
      }),
      { numRuns: 25 },
    )
  })
})
