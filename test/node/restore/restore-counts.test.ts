import { readFile, writeFile } from 'node:fs/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDevice } from '../../../node/disk/file-device.ts'
import { HashPool } from '../../../node/disk/hash-pool.ts'
import type { StagedContent } from '../../../node/restore/block-provider.ts'
import { restore } from '../../../node/restore/restore.ts'
import type { RestoreResult } from '../../../node/restore/restore-result.ts'
import { buildTree } from '../../../node/store/build-tree.ts'
import type { TreeFacts } from '../../../node/store/tree-file.ts'
import { TreeStore } from '../../../node/store/tree-store.ts'
import { markVerified } from '../../../node/trust/verified-manifest.ts'
import type { LogState, WriteLog } from '../../../node/writelog/write-log.ts'
import { type Digest, digestOf, toHex } from '../../../protocol/digest.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { byteCount } from '../../../protocol/units.ts'
import { Random } from '../../../tools/lab/random.ts'
import { ImageFetcher } from '../../support/image-fetcher.ts'
import { testSeed } from '../../support/seed.ts'
import { makeManifest } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const GRANULE = 4096
/** Granules in a block. */
const SPAN = 8
const BLOCK = SPAN * GRANULE
/** No more than an audit looks at, so that what a log misses is always found. */
const BLOCKS = 62
const SIZE = BLOCKS * BLOCK
const BEYOND = 3000
const { signal } = new AbortController()

/** The granules of 4 KiB in which two contents differ. */
function differing(a: Buffer, b: Buffer): number[] {
  const granules = Array.from({ length: SIZE / GRANULE }, (_, i) => i)
  return granules.filter((i) => a.compare(b, i * GRANULE, (i + 1) * GRANULE, i * GRANULE, (i + 1) * GRANULE) !== 0)
}

class FakeLog implements WriteLog {
  readonly source = 'nbd'
  readonly unitSize = GRANULE
  readonly witness = 'none'
  readonly #state: LogState
  #marked: RangeSet
  doubts: string[] = []

  constructor(state: LogState, granules: readonly number[]) {
    this.#state = state
    this.#marked = RangeSet.from(granules.map((i) => [i, i + 1]))
  }

  open = async (): Promise<LogState> => this.#state
  dirty = async (): Promise<RangeSet> => this.#marked
  mark = async (): Promise<void> => undefined
  clear = async (units: RangeSet): Promise<void> => {
    this.#marked = this.#marked.subtract(units)
  }
  reset = async (units: RangeSet): Promise<void> => {
    this.#marked = units
  }
  doubt = async (reason: string): Promise<void> => void this.doubts.push(reason)
  close = async (): Promise<void> => undefined
}

describe('the counts of a restore', () => {
  const random = new Random(testSeed('restore counts'))
  const pool = new HashPool({ workers: 1 })
  const dir = useTempDir()
  let trees: TreeStore
  let before: Buffer
  let image: Buffer
  let [older, facts]: [TreeFacts | undefined, TreeFacts | undefined] = [undefined, undefined]

  /** The image has zeros, blocks that are alike, and content that repeats off the grid of blocks; the release before differs. */
  beforeAll(async () => {
    trees = new TreeStore(dir())
    image = Buffer.from(random.bytes(SIZE))
    for (const zero of [0, 7, 8]) image.fill(0, zero * BLOCK, (zero + 1) * BLOCK)
    for (const [to, from] of [
      [11, 10],
      [36, 10],
      [37, 10],
      [38, 9],
    ] as const)
      image.copy(image, to * BLOCK, from * BLOCK, (from + 1) * BLOCK)
    // More than is worth copying, two granules off.
    image.copy(image, 40 * BLOCK + 2 * GRANULE, 12 * BLOCK, 32 * BLOCK)
    before = Buffer.from(image)
    for (const changed of [3, 4, 5, 33, 34, 50]) before.set(random.bytes(BLOCK), changed * BLOCK)
    image.copy(before, 60 * BLOCK, 35 * BLOCK, 36 * BLOCK)
    ;[older, facts] = [await published('before', before), await published('image', image)]
  })
  afterAll(() => pool.close())

  async function published(name: string, content: Buffer): Promise<TreeFacts> {
    await writeFile(dir(name), content)
    const options = { path: dir(name), size: SIZE, blockSize: BLOCK, preserve: RangeSet.empty, pool, trees, signal }
    return buildTree({ ...options, progress: () => undefined })
  }

  /** Some blocks of the image, by digest. */
  function someOf(blocks: readonly number[]): StagedContent & { has(digest: Digest): boolean } {
    const content = new Map(
      blocks.map((index) => {
        const data = image.subarray(index * BLOCK, (index + 1) * BLOCK)
        return [toHex(digestOf(data)), data] as const
      }),
    )
    return {
      has: (digest) => content.has(toHex(digest)),
      read: async (digest) => {
        const data = content.get(toHex(digest))
        return data === undefined ? undefined : Buffer.from(data)
      },
    }
  }

  const change = fc.record({
    kind: fc.constantFrom('noise', 'zero', 'copy', 'byte', 'much'),
    at: fc.nat(BLOCKS - 1),
    other: fc.nat(BLOCKS - 1),
  })
  type Change = { kind: string; at: number; other: number }
  const damaged = (disk: Buffer, changes: readonly Change[]): Buffer => {
    for (const { kind, at, other } of changes) {
      const begin = at * BLOCK
      if (kind === 'noise') disk.set(random.bytes(BLOCK), begin)
      if (kind === 'zero') disk.fill(0, begin, begin + BLOCK)
      if (kind === 'copy') disk.copy(disk, begin, other * BLOCK, (other + 1) * BLOCK)
      if (kind === 'byte') disk[begin + 17]! ^= 1
      if (kind === 'much') disk.set(random.bytes(Math.min(50 * BLOCK, SIZE - begin)), begin)
    }
    return disk
  }

  /** What a log says: nothing; all that was written; not all of it; what was written since another release. */
  type Kind = 'none' | 'honest' | 'lying' | 'moved'
  function logOf(kind: Kind, disk: Buffer, also: readonly number[]): FakeLog {
    if (kind === 'none') return new FakeLog({ state: 'unknown', reason: 'first' }, [])
    if (kind === 'moved') {
      const against = { release: 2, root: toHex(older!.root) }
      return new FakeLog({ state: 'unknown', reason: 'of another release', against }, differing(disk, before))
    }
    const written = differing(disk, image)
    const told = kind === 'honest' ? written : written.filter((_, i) => i % 3 !== 0)
    return new FakeLog({ state: 'dirty' }, [...told, ...also])
  }

  async function restored(disk: Buffer, log: FakeLog, staged: readonly number[], beside: readonly number[]) {
    await writeFile(dir('disk'), Buffer.concat([disk, Buffer.alloc(BEYOND, 0xaa)]))
    const { root, repeats } = facts!
    const size = { size: byteCount(SIZE), blockSize: byteCount(BLOCK) }
    const manifest = makeManifest({ ...size, release: 3, root, ...(repeats === undefined ? {} : { repeats }) })
    const device = await openDevice(dir('disk'), { writable: true })
    try {
      return await restore({
        manifest: markVerified(manifest),
        target: { device, log },
        sources: {
          trees,
          others: [older!],
          ...(staged.length === 0 ? {} : { stage: { isAhead: true, open: async () => someOf(staged) } }),
          ...(beside.length === 0 ? {} : { beside: someOf(beside) }),
          fetcher: async () => new ImageFetcher(image),
        },
        steps: { beforeWriting: async () => undefined },
        pool,
        names: { machine: 'pc1', nameOf: (id) => id },
        progress: () => undefined,
        signal,
        random: () => random.next(),
      })
    } finally {
      await device.close()
    }
  }

  function expectWhole({ blocks, verified, beyondImage }: RestoreResult): void {
    const { dirty, zero, local, staged, copied, fetched } = blocks
    expect(verified).toBe(true)
    expect(zero + local + staged + copied + fetched).toBe(dirty)
    expect(beyondImage).toBe(BEYOND)
  }

  it('tell of each dirty block once where its content came from, in restores of all kinds', async () => {
    const seen = { zero: 0, local: 0, staged: 0, copied: 0, fetched: 0, missed: 0, moved: 0 }
    const someBlocks = fc.array(fc.nat(BLOCKS - 1), { maxLength: 40 })
    const kinds = fc.constantFrom<Kind>('none', 'honest', 'lying', 'moved')
    const changes = fc.array(change, { maxLength: 12 })
    const granules = fc.array(fc.nat(SIZE / GRANULE - 1), { maxLength: 10 })
    await fc.assert(
      fc.asyncProperty(kinds, changes, granules, someBlocks, someBlocks, async (kind, what, also, staged, beside) => {
        const disk = damaged(Buffer.from(kind === 'moved' ? before : image), what)
        const wrong = new Set(differing(disk, image).map((i) => Math.floor(i / SPAN)))
        const result = await restored(disk, logOf(kind, disk, also), staged, beside)
        expectWhole(result)
        expect((await readFile(dir('disk'))).equals(Buffer.concat([image, Buffer.alloc(BEYOND, 0xaa)]))).toBe(true)
        expect(result.blocks.dirty).toBeGreaterThanOrEqual(wrong.size)
        if (kind === 'none') expect(result.blocks.dirty).toBe(wrong.size)
        if (kind === 'moved') expect(result.log).toMatchObject({ state: 'dirty', movedFrom: 2 })
        else expect(result.log).not.toHaveProperty('movedFrom')
        for (const source of ['zero', 'local', 'staged', 'copied', 'fetched'] as const)
          seen[source] += result.blocks[source]
        seen.missed += result.log.missed === undefined ? 0 : 1
        seen.moved += result.log.movedFrom === undefined ? 0 : 1
      }),
      { numRuns: 60, seed: testSeed('restore counts runs') },
    )
    // Each way was gone.
    for (const [source, count] of Object.entries(seen)) expect(count, source).toBeGreaterThan(0)
  })

  it('tell the ways apart', async () => {
    const disk = Buffer.from(image)
    for (const index of [0, 2, 3, 10, 11, 36, 37, 39]) disk.set(random.bytes(BLOCK), index * BLOCK)
    const log = logOf('honest', disk, [])
    // Of four blocks with the same content one is fetched; that of 39 stands on another disk, that of 3 in the stage.
    const { blocks } = await restored(disk, log, [3], [39])
    expect(blocks).toMatchObject({ dirty: 8, zero: 1, staged: 1, local: 1, copied: 3, fetched: 2 })
  })
})
