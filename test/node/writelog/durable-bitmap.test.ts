import { AssertionError } from 'node:assert'
import { open, readFile, truncate, writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { DurableBitmap, type DurableBitmapOptions, logFileSize } from '../../../node/writelog/durable-bitmap.ts'
import { openLogStorage } from '../../../node/writelog/log-storage.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { writeLogCompliance } from '../../compliance/write-log.ts'
import { FaultyDevice } from '../../fakes/faulty-device.ts'
import { codeOf } from '../../support/error-code.ts'
import { imaginedDisk } from '../../support/log-disk.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const MIB = 1024 ** 2
const ROOT = new Uint8Array(32).fill(7)
const RELEASE = { release: 3, root: ROOT }
const dir = useTempDir()
let files = 0

type Begun = Awaited<ReturnType<typeof begun>>

/** A log in a file for a disk of `size` bytes, begun for release 3 with nothing dirty, closed. */
async function begun(size = 64 * MIB) {
  const path = dir(`log-${files++}`)
  const disk = imaginedDisk(size)
  const at = async (options: Partial<Omit<DurableBitmapOptions, 'storage'>> = {}) => {
    const facts = options.disk ?? disk
    const { storage } = await openLogStorage(path, logFileSize(facts.size, options.unitSize))
    return new DurableBitmap({ storage, source: 'nbd', disk: facts, release: RELEASE, ...options })
  }
  const log = await at()
  await log.open()
  await log.reset(RangeSet.empty)
  await log.close()
  return { path, disk, at }
}

async function poke(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(bytes, 0, bytes.length, offset)
  await file.close()
}

writeLogCompliance('DurableBitmap', async () => {
  const { at } = await begun()
  return { log: await at(), units: (64 * MIB) / 4096, again: () => at() }
})

describe('the durable bitmap', () => {
  it('is clean after a reset, dirty after a mark, and says when it was not closed', async () => {
    const { at } = await begun()
    const first = await at()
    expect(await first.open()).toEqual({ state: 'clean', unclean: false })
    await first.mark(RangeSet.of(10, 12))
    const second = await at()
    expect(await second.open()).toEqual({ state: 'dirty', unclean: true })
    expect([...(await second.dirty()).runs()]).toEqual([[10, 12]])
    await second.close()
    expect(await (await at()).open()).toEqual({ state: 'dirty', unclean: false })
  })

  it('costs no flush for what is marked already, and one for many first marks at once', async () => {
    const { at } = await begun()
    const log = await at()
    await log.open()
    const before = log.flushes
    await Promise.all(Array.from({ length: 500 }, (_, i) => log.mark(RangeSet.of(i * 20, i * 20 + 3))))
    const group = log.flushes - before
    expect(group).toBeLessThanOrEqual(2)
    for (let i = 0; i < 500; i++) expect(log.markRun(i * 20, i * 20 + 3)).toBeUndefined()
    expect(log.flushes - before).toBe(group)
    await log.close()
  })

  it.each<[string, (log: Begun) => Promise<void>, RegExp]>([
    ['cut short', ({ path }) => truncate(path, 2048), /cut short/],
    ['empty', ({ path }) => truncate(path, 0), /cut short/],
    ['another file', async ({ path }) => poke(path, 0, Buffer.alloc(512, 'x')), /something else/],
    [
      'of a newer version',
      async ({ path }) => poke(path, 19, Buffer.from('3')),
      /newer version of mesh: format 3, this version reads up to 2/,
    ],
    ['damaged in its header', async ({ path }) => poke(path, 60, Buffer.from([1])), /header is damaged/],
    [
      'damaged in its summary',
      async ({ path, at }) => {
        const log = await at()
        await log.open()
        await log.mark(RangeSet.of(5, 6))
        await poke(path, 512 * 2 + 7, Buffer.from([1]))
        await poke(path, 512 * 1 + 7, Buffer.from([1]))
      },
      /damaged in sector/,
    ],
    [
      'put together from sectors in the wrong places',
      async ({ path, at }) => {
        const log = await at()
        await log.open()
        await log.mark(
          RangeSet.from([
            [0, 1],
            [5000, 5001],
          ]),
        )
        const file = await readFile(path)
        const bits = (i: number): Buffer => file.subarray(512 * (3 + i), 512 * (4 + i))
        await poke(path, 512 * 3, bits(1))
        await poke(path, 512 * 4, bits(0))
      },
      /damaged in sector 3/,
    ],
    [
      'damaged in its bits',
      async ({ path, at }) => {
        const log = await at()
        await log.open()
        await log.mark(RangeSet.of(5, 6))
        await poke(path, 512 * 3 + 7, Buffer.from([1]))
      },
      /damaged in sector 3/,
    ],
  ])('is unknown when it is %s', async (_, harm, reason) => {
    const made = await begun()
    await harm(made)
    const { storage, made: why } = await openLogStorage(made.path, logFileSize(made.disk.size))
    const log = new DurableBitmap({ storage, source: 'nbd', disk: made.disk, release: RELEASE })
    if (why !== undefined) await log.format(why)
    expect(await log.open()).toEqual({ state: 'unknown', reason: expect.stringMatching(reason) })
    // A new beginning is possible at once.
    await log.reset(RangeSet.of(1, 2))
    await log.close()
    expect(await (await made.at()).open()).toMatchObject({ state: 'dirty' })
  })

  it('is unknown for another release, and known for its own again', async () => {
    const { at } = await begun()
    const other = await at({ release: { release: 4, root: new Uint8Array(32) } })
    expect(await other.open()).toEqual({
      state: 'unknown',
      reason: 'the log is of release 3, not 4',
      against: { release: 3, root: '07'.repeat(32) },
    })
    await other.close()
    expect(await (await at()).open()).toEqual({ state: 'clean', unclean: false })
  })

  it('does not touch storage that holds something else before the first reset', async () => {
    const path = dir('not-a-log')
    const content = Buffer.alloc(logFileSize(64 * MIB), 'precious ')
    await writeFile(path, content)
    const { storage } = await openLogStorage(path, content.byteLength)
    const log = new DurableBitmap({ storage, source: 'nbd', disk: imaginedDisk(64 * MIB), release: RELEASE })
    expect((await log.open()).state).toBe('unknown')
    await log.mark(RangeSet.of(0, 100))
    await log.clear(RangeSet.of(0, 50))
    await log.doubt('no matter')
    await log.close()
    expect((await readFile(path)).equals(content)).toBe(true)
  })

  it.each<[string, (disk: Begun['disk']) => Parameters<Begun['at']>[0], string]>([
    ['another disk', (disk) => ({ disk: imaginedDisk(disk.size, 'b2') }), 'the log is of another disk'],
    [
      'another size',
      (disk) => ({ disk: imaginedDisk(disk.size - 4096) }),
      `the disk has ${64 * MIB - 4096} bytes, and had ${64 * MIB} when the log was begun`,
    ],
    ['another unit', () => ({ unitSize: 8192 }), 'the log has units of 4096 bytes, not 8192'],
    ['another monitor', () => ({ source: 'dm-era' }), 'the log was kept by nbd, not by dm-era'],
  ])('is unknown for %s, and from then on for its own', async (_, other, reason) => {
    const { at, disk } = await begun()
    const foreign = await at(other(disk))
    const state = await foreign.open()
    expect(state).toEqual({ state: 'unknown', reason })
    // Granted, and kept nowhere: the disk is written now, and then all is as it was before.
    await foreign.mark(RangeSet.of(0, 100))
    await foreign.close()
    const log = await at()
    expect(await log.open()).toEqual(state)
    await log.reset(RangeSet.empty)
    await log.close()
    expect(await (await at()).open()).toEqual({ state: 'clean', unclean: false })
  })

  it('clears nothing while it is unknown', async () => {
    const { at } = await begun()
    const monitor = await at()
    await monitor.open()
    await monitor.mark(RangeSet.of(5, 9))
    await monitor.close()
    // A restore of another release that ends before it resets the log has put nothing right for this one.
    const other = await at({ release: { release: 4, root: new Uint8Array(32) } })
    expect((await other.open()).state).toBe('unknown')
    await other.clear(RangeSet.of(0, 100))
    await other.close()
    const log = await at()
    expect((await log.open()).state).toBe('dirty')
    expect([...(await log.dirty()).runs()]).toEqual([[5, 9]])
    await log.doubt('found wrong')
    await log.clear(RangeSet.of(5, 9))
    expect(log.dirtyCount).toBe(4)
    await log.close()
  })

  it('takes no mark before it is opened', async () => {
    const { at } = await begun()
    const log = await at()
    await expect(log.mark(RangeSet.of(0, 1))).rejects.toBeInstanceOf(AssertionError)
    await expect(log.reset(RangeSet.empty)).rejects.toBeInstanceOf(AssertionError)
  })

  it('is unknown in storage that is too small, and works in memory only', async () => {
    const disk = imaginedDisk(64 * MIB)
    const storage = new FaultyDevice(Buffer.alloc(1024))
    const options = { storage, source: 'nbd', disk, release: RELEASE } as const
    for (let time = 0; time < 2; time++) {
      const log = new DurableBitmap(options)
      const reason = `fake-disk is too small for the log: 1024 of ${logFileSize(disk.size)} bytes`
      expect(await log.open()).toEqual({ state: 'unknown', reason })
      await log.reset(RangeSet.of(3, 5))
      await log.mark(RangeSet.of(9, 10))
      expect(log.dirtyCount).toBe(3)
      await log.close()
    }
    expect(storage.bytes.equals(Buffer.alloc(1024))).toBe(true)
  })

  it('counts nothing behind the end of the disk', async () => {
    const { at } = await begun(10 * 4096 + 1)
    const log = await at()
    await log.open()
    await log.reset(RangeSet.of(8, 16))
    expect([...(await log.dirty()).runs()]).toEqual([[8, 11]])
    await log.clear(RangeSet.of(8, 16))
    expect(log.dirtyCount).toBe(0)
    await log.close()
  })

  it('keeps a doubt that comes while it begins anew', async () => {
    const { at } = await begun()
    const log = await at()
    await log.open()
    await Promise.all([log.reset(RangeSet.empty), log.doubt('a wrong block')])
    await log.close()
    expect(await (await at()).open()).toEqual({ state: 'unknown', reason: 'a wrong block' })
  })

  it('grants no first mark after its storage failed, nor one that waited for it', async () => {
    const disk = imaginedDisk(64 * MIB)
    const storage = new FaultyDevice(Buffer.alloc(logFileSize(disk.size)))
    const log = new DurableBitmap({ storage, source: 'nbd', disk, release: RELEASE })
    await log.open()
    await log.reset(RangeSet.empty)
    await log.mark(RangeSet.of(1, 2))
    storage.failFlush = true
    const lost = [log.mark(RangeSet.of(10, 11)), log.mark(RangeSet.of(12, 13))]
    for (const mark of lost) expect(await codeOf(mark)).toBe('DISK_IO')
    // The storage says it is well again; what became of the marks nobody knows.
    storage.failFlush = false
    for (const start of [10, 12, 20, 5000])
      expect(await codeOf(log.mark(RangeSet.of(start, start + 1)))).toBe('DISK_IO')
    expect(await codeOf(log.close())).toBe('DISK_IO')
    const again = new DurableBitmap({ storage, source: 'nbd', disk, release: RELEASE })
    expect(await again.open()).toEqual({ state: 'dirty', unclean: true })
    expect((await again.dirty()).has(1)).toBe(true)
  })

  it('is unknown when an older copy of it was put back', async () => {
    const { path, at, disk } = await begun()
    const older = await readFile(path)
    const log = await at()
    await log.open()
    await log.mark(RangeSet.of(7, 8))
    disk.written = 'boot.2'
    await log.close()
    await writeFile(path, older)
    expect(await (await at()).open()).toMatchObject({ state: 'unknown' })
  })

  it('is unknown when the disk was written after it was closed, and stays so', async () => {
    const { at, disk } = await begun()
    disk.written = 'boot.2'
    const reason = 'the disk was written after the log was closed'
    const monitor = await at()
    expect(await monitor.open()).toEqual({ state: 'unknown', reason })
    await monitor.close()
    expect(await (await at()).open()).toEqual({ state: 'unknown', reason })
  })

  it('keeps a doubt until the next reset', async () => {
    const { at } = await begun()
    const log = await at()
    await log.open()
    await log.doubt('block 7 changed\nunnoticed')
    const next = await at()
    expect(await next.open()).toEqual({ state: 'unknown', reason: 'block 7 changed unnoticed' })
    await next.reset(RangeSet.of(4, 5))
    await next.close()
    expect(await (await at()).open()).toEqual({ state: 'dirty', unclean: false })
  })

  it('opens for a disk of 1 TiB in the time and memory of what was marked', async () => {
    const { at } = await begun(1024 ** 4)
    const log = await at()
    await log.open()
    const last = 1024 ** 4 / 4096
    await log.mark(
      RangeSet.from([
        [0, 1],
        [last / 2, last / 2 + 70_000],
        [last - 1, last],
      ]),
    )
    const again = await at()
    expect(await again.open()).toMatchObject({ state: 'dirty' })
    expect([...(await again.dirty()).runs()]).toEqual([
      [0, 1],
      [last / 2, last / 2 + 70_000],
      [last - 1, last],
    ])
  })
})
