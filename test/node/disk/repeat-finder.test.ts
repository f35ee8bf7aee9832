import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { ANCHOR_WINDOW } from '../../../node/disk/anchors.ts'
import { HashPool } from '../../../node/disk/hash-pool.ts'
import { SCAN_RUN_BYTES } from '../../../node/disk/limits.ts'
import type { Progress } from '../../../node/disk/progress.ts'
import { RepeatFinder } from '../../../node/disk/repeat-finder.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import type { Repeat } from '../../../protocol/repeats.ts'
import { Random } from '../../../tools/lab/random.ts'
import { codeOf } from '../../support/error-code.ts'
import { testSeed } from '../../support/seed.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const GRANULE = 4096
const BLOCK = 16 * GRANULE
const GRANULES = 3000
/** Granules that a thread hashes at once. */
const RUN = SCAN_RUN_BYTES / GRANULE
const { signal } = new AbortController()

describe('RepeatFinder', () => {
  const random = new Random(testSeed('repeat finder'))
  const content = Buffer.from(random.bytes(GRANULES * GRANULE))
  const pool = new HashPool({ workers: 2 })
  afterAll(() => pool.close())

  async function find(
    image: Buffer,
    preserve = RangeSet.empty,
    options: Parameters<RepeatFinder['find']>[2] = { signal, progress: () => undefined },
  ): Promise<Repeat[]> {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, image)
    const facts = { size: image.byteLength, blockSize: BLOCK, preserve }
    const finder = new RepeatFinder(Math.floor(image.byteLength / GRANULE))
    const scan = pool.scan(path, facts, { skip: preserve, anchorBits: finder.anchorBits })
    for await (const { first, anchors } of scan) finder.take(first * 16, anchors!)
    return await finder.find(path, facts, options)
  }

  const at = (image: Buffer, from: number, count: number): Buffer =>
    image.subarray(from * GRANULE, (from + count) * GRANULE)

  it('says only what is true, in order and apart, and finds what is long', async () => {
    const place = fc.record({
      to: fc.nat(GRANULES - 200),
      from: fc.nat(GRANULES - 200),
      count: fc.integer({ min: 1, max: 200 }),
    })
    const preserved = fc.array(fc.tuple(fc.nat(180), fc.nat(4)), { maxLength: 2 })
    await fc.assert(
      fc.asyncProperty(
        fc.array(place, { maxLength: 6 }),
        preserved,
        fc.nat(GRANULE - 1),
        async (copies, runs, tail) => {
          const image = Buffer.concat([content, random.bytes(tail)])
          for (const { to, from, count } of copies)
            image.copy(image, to * GRANULE, from * GRANULE, (from + count) * GRANULE)
          const preserve = RangeSet.from(runs.map(([start, count]): [number, number] => [start, start + count]))
          const found = await find(image, preserve)
          let end = 0
          const seconds = new Set<number>()
          for (const { to, from, count } of found) {
            expect(to).toBeGreaterThanOrEqual(end)
            expect(from + count).toBeLessThanOrEqual(to)
            end = to + count
            expect(at(image, to, count).equals(at(image, from, count))).toBe(true)
            for (let i = 0; i < count; i++) {
              seconds.add(to + i)
              expect(preserve.has(Math.floor((to + i) / 16))).toBe(false)
              expect(preserve.has(Math.floor((from + i) / 16))).toBe(false)
            }
          }
          // What has been met before, by the simplest means. Ends of a few granules may be overlooked.
          const met = new Set<string>()
          let [run, missed] = [0, 0]
          for (let i = 0; i < GRANULES; i++) {
            const text = preserve.has(Math.floor(i / 16)) ? undefined : at(image, i, 1).toString('latin1')
            run = text !== undefined && met.has(text) && !seconds.has(i) ? run + 1 : 0
            missed = Math.max(missed, run)
            if (text !== undefined) met.add(text)
          }
          // Several of them may stand on end.
          expect(missed).toBeLessThan(64)
        },
      ),
      { numRuns: 40 },
    )
  })

  it('finds every run of as many granules as there is an anchor among, whatever stands around it', async () => {
    const image = Buffer.from(content)
    const runs = Array.from({ length: 140 }, (_, i) => ({
      to: 1500 + 10 * i + (i % 4),
      from: 10 * i,
      count: ANCHOR_WINDOW,
    }))
    for (const { to, from, count } of runs) image.copy(image, to * GRANULE, from * GRANULE, (from + count) * GRANULE)
    // Some of them lie across what a thread hashes at once.
    for (const place of ['to', 'from'] as const)
      expect(runs.some((run) => run[place] % RUN > RUN - ANCHOR_WINDOW)).toBe(true)
    expect(await find(image)).toEqual(runs)
  })

  it('finds nothing in content without repeats, and does not take zeros for such', async () => {
    expect(await find(content)).toEqual([])
    const image = Buffer.from(content)
    image.fill(0, 100 * GRANULE, 400 * GRANULE)
    image.fill(0, 1000 * GRANULE, 1300 * GRANULE)
    expect(await find(image)).toEqual([])
  })

  it('says how far it is, and can be interrupted within a repeat', async () => {
    const image = Buffer.from(content)
    image.copy(image, 1500 * GRANULE, 0, 1400 * GRANULE)
    const stop = new AbortController()
    const told: Progress[] = []
    const progress = (at: Progress): void => {
      told.push(at)
      stop.abort()
    }
    expect(await codeOf(find(image, RangeSet.empty, { signal: stop.signal, progress }))).toBe('INTERRUPTED')
    const [first, ...more] = told
    expect(more).toEqual([])
    expect(first).toMatchObject({ phase: 'repeats', totalBytes: image.byteLength })
    expect(first!.doneBytes).toBeGreaterThanOrEqual(1500 * GRANULE)
    expect(await find(image)).toEqual([{ to: 1500, from: 0, count: 1400 }])
  })

  it('ends when granules only look alike', async () => {
    // Equal but for one byte that the fingerprint does not look at.
    const image = Buffer.alloc(GRANULES * GRANULE)
    for (let i = 0; i < GRANULES; i++) {
      image.fill(7, i * GRANULE, (i + 1) * GRANULE)
      image.writeUInt32LE(i, i * GRANULE + 400)
    }
    expect(await find(image)).toEqual([])
  })

  it('tells a run of the same content from its first place', async () => {
    const image = Buffer.from(content)
    for (let i = 1; i < 50; i++) image.copy(image, (200 + i) * GRANULE, 200 * GRANULE, 201 * GRANULE)
    // An anchor is the first granule, and then each that is the first one without the last anchor among those before it.
    const repeats = [7, 14, 28].map((after) => ({ to: 200 + after, from: 200, count: Math.min(after, 50 - after) }))
    expect(await find(image)).toEqual(repeats)
  })
})
