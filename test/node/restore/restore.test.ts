import { open, readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { BlockDevice } from '../../../node/disk/block-device.ts'
import { openDevice } from '../../../node/disk/file-device.ts'
import { HashPool } from '../../../node/disk/hash-pool.ts'
import type { FetchedBlock, FetchRequest } from '../../../node/exchange/ask/fetch-request.ts'
import type { BlockFetcher } from '../../../node/restore/block-fetcher.ts'
import { type RestoreOptions, restore } from '../../../node/restore/restore.ts'
import { verifyDisk } from '../../../node/restore/verify.ts'
import { buildTree } from '../../../node/store/build-tree.ts'
import { HAVE_DELAY_MS } from '../../../node/store/limits.ts'
import { TreeStore } from '../../../node/store/tree-store.ts'
import { markVerified, type VerifiedManifest } from '../../../node/trust/verified-manifest.ts'
import { ScanLog } from '../../../node/writelog/scan-log.ts'
import type { LogState, WriteLog } from '../../../node/writelog/write-log.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { byteCount } from '../../../protocol/units.ts'
import { Random } from '../../../tools/lab/random.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const BLOCK = 4096
const BLOCKS = 60
const TAIL = 1000
const SIZE = (BLOCKS - 1) * BLOCK + TAIL
/** Bytes of the disk behind the image. */
const BEYOND = 5000

describe('restore', () => {
  const dir = useTempDir()
  const random = new Random(5)
  const pool = new HashPool({ workers: 2 })
  const { signal } = new AbortController()
  let image: Buffer
  let manifest: VerifiedManifest
  let trees: TreeStore

  beforeAll(async () => {
    image = Buffer.from(random.bytes(SIZE))
    // Zero blocks, repeated ones, and one content that stands in many places.
    for (const zero of [0, 7, 8, 30]) image.fill(0, zero * BLOCK, (zero + 1) * BLOCK)
    for (const [to, from] of [
      [11, 10],
      [40, 10],
      [41, 10],
      [50, 20],
    ])
      image.copy(image, to! * BLOCK, from! * BLOCK, (from! + 1) * BLOCK)
    for (let same = 22; same < 28; same++) image.fill(0xff, same * BLOCK, (same + 1) * BLOCK)
    await writeFile(dir('image'), image)
    trees = new TreeStore(dir())
    manifest = await publish(RangeSet.empty)
  })
  afterAll(() => pool.close())

  async function publish(preserve: RangeSet): Promise<VerifiedManifest> {
    const tree = await buildTree({
      path: dir('image'),
      size: SIZE,
      blockSize: BLOCK,
      preserve,
      pool,
      trees,
      progress: () => undefined,
      signal,
    })
    return markVerified(makeManifest({ size: byteCount(SIZE), blockSize: byteCount(BLOCK), root: tree.root, preserve }))
  }

  /** Gives blocks of the image, as a swarm would; `limit` makes it fail after so many. */
  class ImageFetcher implements BlockFetcher {
    readonly asked: number[] = []
    readonly ledger = { all: () => [], offenders: () => [] }
    readonly #limit: number

    constructor(limit = Number.POSITIVE_INFINITY) {
      this.#limit = limit
    }

    async *fetch(request: FetchRequest): AsyncGenerator<FetchedBlock> {
      for (const index of request.wanted.values()) {
        if (this.asked.length === this.#limit) throw new MeshError('BLOCKS_UNAVAILABLE', 'nobody has more')
        this.asked.push(index)
        const data = Buffer.alloc(BLOCK)
        image.copy(data, 0, index * BLOCK, Math.min((index + 1) * BLOCK, SIZE))
        yield { index, data, peerId: 'peer', received: BLOCK }
      }
    }
  }

  /** What a test gives instead of the usual. */
  type Over = Partial<Pick<RestoreOptions, 'manifest' | 'signal' | 'now'>> & {
    readonly log?: WriteLog
    readonly sources?: Partial<RestoreOptions['sources']>
    readonly steps?: Partial<RestoreOptions['steps']>
  }

  async function run(
    disk: string,
    fetcher: ImageFetcher | undefined,
    over: Over = {},
    wrap: (device: BlockDevice) => BlockDevice = (device) => device,
  ) {
    const device = await openDevice(disk, { writable: true })
    try {
      return await restore({
        manifest,
        pool,
        names: { machine: 'pc1', nameOf: (id) => id },
        progress: () => undefined,
        signal,
        random: () => random.next(),
        ...over,
        target: { device: wrap(device), log: over.log ?? new ScanLog() },
        sources: {
          trees,
          fetcher: async () => {
            if (fetcher === undefined) throw new Error('the network must not be needed')
            return fetcher
          },
          ...over.sources,
        },
        steps: { beforeWriting: async () => undefined, ...over.steps },
      })
    } finally {
      await device.close()
    }
  }

  /** What a session does to a disk: random bytes, zeros, or another block's content, anywhere, also behind the image. */
  const change = fc.record({
    kind: fc.constantFrom('noise', 'zero', 'copy', 'swap', 'byte'),
    at: fc.nat(BLOCKS - 1),
    other: fc.nat(BLOCKS - 1),
  })

  function damage(disk: Buffer, changes: readonly { kind: string; at: number; other: number }[]): void {
    for (const { kind, at, other } of changes) {
      const [a, b] = [at * BLOCK, other * BLOCK]
      const blockA = Buffer.from(disk.subarray(a, a + BLOCK))
      const blockB = Buffer.from(disk.subarray(b, b + BLOCK))
      if (kind === 'noise') disk.set(random.bytes(BLOCK), a)
      if (kind === 'zero') disk.fill(0, a, a + BLOCK)
      if (kind === 'copy' || kind === 'swap') disk.set(blockB, a)
      if (kind === 'swap') disk.set(blockA, b)
      if (kind === 'byte') disk[a + 17]! ^= 1
    }
  }

  const fresh = (): Buffer => Buffer.concat([image, Buffer.alloc(BEYOND, 0xaa)])
  const differing = (disk: Buffer): number[] => {
    return [...Array(BLOCKS).keys()].filter((i) => {
      const end = Math.min((i + 1) * BLOCK, SIZE)
      return !disk.subarray(i * BLOCK, end).equals(image.subarray(i * BLOCK, end))
    })
  }

  it('makes any damaged disk equal to the image, fetches each content once, and touches nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 30 }), async (changes) => {
        const disk = fresh()
        damage(disk, changes)
        const beyond = Buffer.from(disk.subarray(SIZE))
        const wrong = differing(disk)
        await writeFile(dir('disk'), disk)
        const fetcher = new ImageFetcher()
        const receipt = await run(dir('disk'), fetcher)
        const after = await readFile(dir('disk'))
        expect(differing(after)).toEqual([])
        expect(after.subarray(SIZE).equals(beyond)).toBe(true)
        const { total, dirty, zero, local, copied, fetched } = receipt.blocks
        expect({ total, dirty, verified: receipt.verified, beyondImage: receipt.beyondImage }).toEqual({
          total: BLOCKS,
          dirty: wrong.length,
          verified: true,
          beyondImage: BEYOND,
        })
        expect(zero + local + copied + fetched).toBe(dirty)
        expect(fetched).toBe(fetcher.asked.length)
        const contents = fetcher.asked.map((i) => image.subarray(i * BLOCK, (i + 1) * BLOCK).toString('hex'))
        expect(new Set(contents).size).toBe(contents.length)
        for (const index of fetcher.asked) expect(wrong).toContain(index)
        expect(receipt.bytes.received).toBe(fetched * BLOCK)
      }),
      { numRuns: 60 },
    )
  })

  it('needs no network for a clean disk, for zeros, for repeats and for content that moved', async () => {
    const disk = fresh()
    await writeFile(dir('disk'), disk)
    expect((await run(dir('disk'), undefined)).blocks).toMatchObject({ dirty: 0 })
    damage(disk, [
      { kind: 'noise', at: 7, other: 0 },
      { kind: 'noise', at: 40, other: 0 },
      { kind: 'noise', at: 25, other: 0 },
      { kind: 'swap', at: 33, other: 44 },
    ])
    await writeFile(dir('disk'), disk)
    const receipt = await run(dir('disk'), undefined)
    expect(receipt.blocks).toMatchObject({ dirty: 5, zero: 1, local: 4, fetched: 0 })
    expect(differing(await readFile(dir('disk')))).toEqual([])
  })

  it('keeps what it has when it cannot go on, and fetches only the rest the next time', async () => {
    await writeFile(dir('disk'), Buffer.alloc(SIZE, 1))
    const first = new ImageFetcher(20)
    expect(await codeOf(run(dir('disk'), first))).toBe('BLOCKS_UNAVAILABLE')
    const left = differing(await readFile(dir('disk')))
    expect(left.length).toBeLessThanOrEqual(BLOCKS - 20)
    const second = new ImageFetcher()
    const receipt = await run(dir('disk'), second)
    expect(receipt.verified).toBe(true)
    expect(second.asked.filter((index) => first.asked.includes(index))).toEqual([])
    expect(differing(await readFile(dir('disk')))).toEqual([])
  })

  it('stops between batches when it is interrupted, and says so', async () => {
    await writeFile(dir('disk'), Buffer.alloc(SIZE, 1))
    const stop = new AbortController()
    const fetcher = new ImageFetcher()
    const stopping: RestoreOptions['steps']['beforeWriting'] = async () => stop.abort()
    expect(await codeOf(run(dir('disk'), fetcher, { signal: stop.signal, steps: { beforeWriting: stopping } }))).toBe(
      'INTERRUPTED',
    )
  })

  it('never reads, writes or counts preserved blocks', async () => {
    const preserve = RangeSet.from([
      [3, 6],
      [BLOCKS - 1, BLOCKS],
    ])
    const kept = await publish(preserve)
    await writeFile(dir('disk'), Buffer.alloc(SIZE, 1))
    const receipt = await run(dir('disk'), new ImageFetcher(), { manifest: kept })
    expect(receipt).toMatchObject({ verified: true, blocks: { dirty: BLOCKS - 4 } })
    expect(differing(await readFile(dir('disk')))).toEqual([3, 4, 5, BLOCKS - 1])
    const device = await openDevice(dir('disk'), { writable: false })
    const report = await verifyDisk({ device, manifest: kept, trees, pool, progress: () => undefined, signal })
    expect(report).toMatchObject({ verified: true, blocks: { different: 0 } })
    await device.close()
  })

  it('keeps the durable order: mark the disk partial, write, flush, clear the log; serves what is written', async () => {
    const events: string[] = []
    const log: WriteLog = {
      source: 'nbd',
      unitSize: 1024,
      witness: 'none',
      open: async (): Promise<LogState> => ({ state: 'dirty' }),
      dirty: async () =>
        RangeSet.from([
          [5, 6],
          [9, 10],
        ]),
      mark: async () => undefined,
      clear: async (units) => void events.push(`clear ${[...units.runs()].join(' ')}`),
      reset: async (units) => void events.push(`reset ${units.count}`),
      doubt: async () => undefined,
      close: async () => undefined,
    }
    const disk = fresh()
    damage(
      disk,
      [1, 2].map((at) => ({ kind: 'noise', at, other: 0 })),
    )
    await writeFile(dir('disk'), disk)
    const recording = (device: BlockDevice): BlockDevice => ({
      path: device.path,
      size: device.size,
      kind: device.kind,
      read: (offset, into) => device.read(offset, into),
      write: async (offset, data) => {
        await device.write(offset, data)
        events.push(`write ${offset / BLOCK}`)
      },
      flush: async () => {
        await device.flush()
        events.push('flush')
      },
      close: () => device.close(),
    })
    const receipt = await run(
      dir('disk'),
      new ImageFetcher(),
      {
        log,
        steps: {
          beforeWriting: async () => void events.push('partial'),
          serving: (source) => {
            source.onChange(({ gained }) => events.push(`serve ${[...gained.values()].join(' ')}`))
          },
        },
      },
      recording,
    )
    await sleep(2 * HAVE_DELAY_MS)
    // Peers are told a moment later, whatever happens meanwhile.
    const served = events.indexOf('serve 1 2')
    expect(served).toBeGreaterThan(Math.max(events.indexOf('write 1'), events.indexOf('write 2')))
    const [first, one, two, ...then] = events.toSpliced(served, 1)
    // Both are under way at the same time.
    expect([one, two].sort()).toEqual(['write 1', 'write 2'])
    expect([first, ...then]).toEqual(['partial', 'flush', 'clear 4,12', 'reset 0'])
    // Nothing was read but the sample of the others, which is all of so small an image.
    expect(receipt).toMatchObject({ blocks: { dirty: 2, audited: BLOCKS - 2 }, log: { source: 'nbd', state: 'dirty' } })
    expect(receipt.bytes.read).toBe(SIZE - 2 * BLOCK)
  })

  it('says how long it took also when the clock is set back meanwhile', async () => {
    let clock = Date.parse('2026-11-30T09:00:00Z')
    const now = (): number => {
      clock -= 3_600_000
      return clock
    }
    await writeFile(dir('m-clock'), image)
    const receipt = await run(dir('m-clock'), undefined, { now })
    expect(receipt.startedAt).toBe('2026-11-30T08:00:00.000Z')
    expect(receipt.seconds).toBeGreaterThanOrEqual(0)
  })

  it('refuses a disk that is too small before it changes anything', async () => {
    await writeFile(dir('small'), Buffer.alloc(SIZE - 1, 3))
    expect(await codeOf(run(dir('small'), undefined))).toBe('DISK_TOO_SMALL')
    expect((await readFile(dir('small'))).equals(Buffer.alloc(SIZE - 1, 3))).toBe(true)
  })

  it('fails with the device and the offset when the disk does', async () => {
    await writeFile(dir('disk'), Buffer.alloc(SIZE, 1))
    const failing = (device: BlockDevice): BlockDevice => ({
      path: device.path,
      size: device.size,
      kind: device.kind,
      read: (offset, into) => device.read(offset, into),
      write: async (offset) => {
        throw new MeshError('DISK_IO', `writing ${device.path} failed at byte ${offset}`, { detail: { offset } })
      },
      flush: () => device.flush(),
      close: () => device.close(),
    })
    expect(await codeOf(run(dir('disk'), new ImageFetcher(), {}, failing))).toBe('DISK_IO')
  })

  it('fetches the hash tree when it is not here, and resumes a tree that was half fetched', async () => {
    const empty = new TreeStore(dir('trees'))
    const { mkdir } = await import('node:fs/promises')
    await mkdir(dir('trees'), { recursive: true })
    await writeFile(dir('disk'), image)
    const stored = await readFile(trees.pathOf(manifest))
    let pages = 0
    const fetcher: BlockFetcher = {
      ledger: { all: () => [], offenders: () => [] },
      async *fetch(request) {
        for (const index of request.wanted.values()) {
          if (pages === 1) {
            pages = 2
            throw new MeshError('PEERS_UNREACHABLE', 'gone')
          }
          pages++
          // 60 blocks of 4 KiB have one page, the root.
          yield { index, data: stored.subarray(0, BLOCK), peerId: 'peer', received: BLOCK }
        }
      },
    }
    const receipt = await run(dir('disk'), undefined, { sources: { trees: empty, fetcher: async () => fetcher } })
    expect(receipt).toMatchObject({ verified: true, bytes: { received: BLOCK } })
    expect((await readFile(empty.pathOf(manifest))).equals(stored)).toBe(true)
    // A damaged tree file is noticed before it is believed.
    const file = await open(empty.pathOf(manifest), 'r+')
    await file.write(Buffer.from([1]), 0, 1, 40)
    await file.close()
    expect(await codeOf(run(dir('disk'), undefined, { sources: { trees: empty } }))).toBe('TREE_CORRUPT')
  })
})
