import { execFile } from 'node:child_process'
import { readdir, readFile, readlink, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { HashPool } from '../../../node/disk/hash-pool.ts'
import { HASH_WORKER_WORTH_BYTES, SCAN_RUN_BYTES } from '../../../node/disk/limits.ts'
import { digestOf, toHex, zeroDigest } from '../../../protocol/digest.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { Random } from '../../../tools/lab/random.ts'
import { attachLoop } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const random = new Random(3)
const pool = new HashPool({ workers: 2 })
afterAll(() => pool.close())

/** Digests in hexadecimal by block, and the order in which the blocks came. */
async function scanned(
  path: string,
  image: { size: number; blockSize: number },
  options: { skip?: RangeSet; signal?: AbortSignal } = {},
  by = pool,
): Promise<Map<number, string>> {
  const found = new Map<number, string>()
  for await (const { first, digests } of by.scan(path, image, options)) {
    for (let i = 0; i * 32 < digests.byteLength; i++) {
      found.set(first + i, toHex(digests.subarray(i * 32, i * 32 + 32)))
    }
  }
  return found
}

/** The same, by the simplest means. */
function expected(content: Uint8Array, blockSize: number, skip = RangeSet.empty): Map<number, string> {
  const digests = new Map<number, string>()
  for (let i = 0; i * blockSize < content.byteLength; i++) {
    const block = Buffer.alloc(blockSize)
    block.set(content.subarray(i * blockSize, (i + 1) * blockSize))
    if (!skip.has(i)) digests.set(i, toHex(digestOf(block)))
  }
  return digests
}

describe('a scan', () => {
  it('hashes every block once and in order, whatever the sizes', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    const content = Buffer.from(random.bytes(3 * SCAN_RUN_BYTES + 12_345))
    // Some blocks of zeros, and zeros next to content.
    content.fill(0, 100_000, 400_000)
    content.fill(0, SCAN_RUN_BYTES - 5000, SCAN_RUN_BYTES + 5000)
    await writeFile(path, content)
    const block = fc.constantFrom(4096, 65_536, 1_048_576)
    const size = fc.integer({ min: 1, max: content.byteLength })
    const skip = fc.array(fc.tuple(fc.nat(3100), fc.nat(100)), { maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(block, size, skip, async (blockSize, imageSize, runs) => {
        const image = { size: imageSize, blockSize }
        const left = RangeSet.from(runs.map(([start, length]) => [start, start + length]))
        const found = await scanned(path, image, { skip: left })
        expect([...found]).toEqual([...expected(content.subarray(0, imageSize), blockSize, left)])
      }),
      { numRuns: 25 },
    )
  })

  it('reads block devices too', async (context) => {
    const path = join(await temporaryDirectory(), 'disk.img')
    const content = random.bytes(1024 * 1024)
    await writeFile(path, content)
    const loop = await attachLoop(path, context)
    const image = { size: content.byteLength - 100, blockSize: 65_536 }
    expect(await scanned(loop, image)).toEqual(expected(content.subarray(0, image.size), 65_536))
  })

  it('knows the holes of a sparse file as zeros, in memory that does not grow with it', async () => {
    const path = join(await temporaryDirectory(), 'sparse.img')
    await writeFile(path, '')
    await truncate(path, 3 * 1024 ** 3)
    const script = `
      import { HashPool } from ${JSON.stringify(new URL('../../../node/disk/hash-pool.ts', import.meta.url).href)}
      const pool = new HashPool({ workers: 2 })
      const digests = new Set()
      for await (const run of pool.scan(process.argv[1], { size: 3 * 1024 ** 3, blockSize: 65536 })) {
        for (let i = 0; i < run.digests.length; i += 32) digests.add(Buffer.from(run.digests.subarray(i, i + 32)).toString('hex'))
      }
      await pool.close()
      console.log(JSON.stringify({ digests: [...digests], maxRssKiB: process.resourceUsage().maxRSS }))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, path])
    const result = JSON.parse(stdout) as { digests: string[]; maxRssKiB: number }
    expect(result.digests).toEqual([toHex(zeroDigest(65_536))])
    expect(result.maxRssKiB).toBeLessThan(200 * 1024)
  })

  it('reads the disk that the path leads to now, also while a scan of the one before goes on', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'disk.img')
    const [first, second] = [random.bytes(10_000), random.bytes(10_000)]
    await writeFile(path, first)
    await truncate(path, 30 * SCAN_RUN_BYTES)
    const image = { size: 30 * SCAN_RUN_BYTES, blockSize: 4096 }
    const before = pool.scan(path, image)
    expect((await before.next()).value).toMatchObject({ first: 0 })
    await writeFile(join(directory, 'next.img'), second)
    await rename(join(directory, 'next.img'), path)
    expect(await scanned(path, { size: 10_000, blockSize: 4096 })).toEqual(expected(second, 4096))
    await before.return(undefined)
  })

  it('leaves nothing open, also when it is given up early', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, random.bytes(1000))
    await truncate(path, 20 * SCAN_RUN_BYTES)
    for await (const run of pool.scan(path, { size: 20 * SCAN_RUN_BYTES, blockSize: 65_536 })) {
      expect(run.first).toBe(0)
      expect(await openCount(path)).toBeGreaterThan(0)
      break
    }
    // The workers are told, and close it when they come to it.
    for (let tries = 0; tries < 100 && (await openCount(path)) > 0; tries++) await sleep(20)
    expect(await openCount(path)).toBe(0)
  })

  it('ends with INTERRUPTED when it is aborted', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, random.bytes(100_000))
    const controller = new AbortController()
    controller.abort()
    const scan = scanned(path, { size: 100_000, blockSize: 4096 }, { signal: controller.signal })
    await expect(scan).rejects.toMatchObject({ code: 'INTERRUPTED' })
  })

  it('names the byte where a disk fails, and the pool goes on', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    const content = random.bytes(2 * SCAN_RUN_BYTES)
    await writeFile(path, content)
    // The disk ends in its second run; the third to eighth fail before the first is even asked for.
    const end = SCAN_RUN_BYTES + 70_000
    await truncate(path, end)
    const seen: number[] = []
    const scan = async (): Promise<void> => {
      for await (const { first } of pool.scan(path, { size: 8 * SCAN_RUN_BYTES, blockSize: 65_536 })) {
        seen.push(first)
        await sleep(50)
      }
    }
    await expect(scan()).rejects.toMatchObject({ code: 'DISK_SHRUNK', detail: { path, offset: end } })
    expect(seen).toEqual([0])
    expect(await scanned(path, { size: 5000, blockSize: 4096 })).toEqual(expected(content.subarray(0, 5000), 4096))
  })

  it.each([
    ['DISK_MISSING', 'none.img'],
    ['DISK_IO', '.'],
  ])('ends with %s for %s', async (code, name) => {
    const path = join(await temporaryDirectory(), name)
    await expect(scanned(path, { size: 4096, blockSize: 4096 })).rejects.toMatchObject({ code })
  })
})

describe('a pool', () => {
  it('hashes single runs, padded', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    const content = random.bytes(20_000)
    await writeFile(path, content)
    const digests = await pool.hashRun({ path, offset: 8192, length: 5000, blockSize: 4096 })
    expect([toHex(digests.subarray(0, 32)), toHex(digests.subarray(32))]).toEqual([
      ...expected(content.subarray(8192, 13_192), 4096).values(),
    ])
  })

  /** The most threads that were seen while a disk was hashed. */
  async function threadsOf(own: HashPool, path: string, size: number, blockSize: number): Promise<number> {
    let most = 0
    for await (const _ of own.scan(path, { size, blockSize })) most = Math.max(most, await workerThreads())
    return most
  }

  it('has threads only while there is work, and no more than there are runs', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, random.bytes(2 * SCAN_RUN_BYTES))
    const before = await workerThreads()
    const own = new HashPool({ workers: 4 })
    expect(await workerThreads()).toBe(before)
    expect(await threadsOf(own, path, 100, 4096)).toBe(before + 1)
    expect(await workerThreads()).toBe(before)
    expect(await threadsOf(own, path, 2 * SCAN_RUN_BYTES, 4096)).toBe(before + 2)
    expect(await workerThreads()).toBe(before)
    await own.close()
  })

  it('hashes in this thread, with others only if there is enough for them', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    const content = random.bytes(2 * SCAN_RUN_BYTES + 100)
    await writeFile(path, content)
    const image = { size: content.byteLength, blockSize: 65_536 }
    const before = await workerThreads()
    const own = new HashPool({ workers: 2, here: true })
    expect(await scanned(path, image, {}, own)).toEqual(expected(content, 65_536))
    expect(await openCount(path)).toBe(0)
    expect(await workerThreads()).toBe(before)
    expect(await threadsOf(own, path, image.size, 65_536)).toBe(before)
    await truncate(path, HASH_WORKER_WORTH_BYTES)
    expect(await threadsOf(own, path, HASH_WORKER_WORTH_BYTES, 65_536)).toBe(before + 1)
    const large = await scanned(path, { size: HASH_WORKER_WORTH_BYTES, blockSize: 65_536 }, {}, own)
    expect([...large.keys()]).toEqual(Array.from({ length: HASH_WORKER_WORTH_BYTES / 65_536 }, (_, i) => i))
    expect(new Set([...large.values()].slice(130))).toEqual(new Set([toHex(zeroDigest(65_536))]))
    expect(await workerThreads()).toBe(before)
    await own.close()
  })

  it('rejects what is under way when it is closed, and everything after', async () => {
    const path = join(await temporaryDirectory(), 'disk.img')
    await writeFile(path, '')
    await truncate(path, 64 * SCAN_RUN_BYTES)
    const own = new HashPool({ workers: 1 })
    const run = { path, offset: 0, length: SCAN_RUN_BYTES, blockSize: 4096 }
    const pending = Promise.allSettled(Array.from({ length: 20 }, () => own.hashRun(run)))
    await own.close()
    for (const outcome of await pending) expect(outcome).toMatchObject({ reason: { code: 'INTERRUPTED' } })
    await expect(own.hashRun(run)).rejects.toMatchObject({ code: 'INTERRUPTED' })
    await own.close()
  })
})

async function openCount(path: string): Promise<number> {
  let count = 0
  for (const fd of await readdir('/proc/self/fd')) {
    // A descriptor may be gone by the time its link is read.
    if ((await readlink(`/proc/self/fd/${fd}`).catch(() => '')) === path) count++
  }
  return count
}

/** Threads of this process that run JavaScript, beside the main one. */
async function workerThreads(): Promise<number> {
  let count = 0
  for (const id of await readdir('/proc/self/task')) {
    const name = await readFile(`/proc/self/task/${id}/comm`, 'utf8').catch(() => '')
    if (name.startsWith('WorkerThread')) count++
  }
  return count
}
