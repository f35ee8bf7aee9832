import { readFile, truncate, writeFile } from 'node:fs/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { DurableBitmap, logFileSize } from '../../../node/writelog/durable-bitmap.ts'
import { openLogStorage } from '../../../node/writelog/log-storage.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { writeLogCompliance } from '../../compliance/write-log.ts'
import { codeOf } from '../../support/error-code.ts'
import { imaginedDisk } from '../../support/log-disk.ts'
import { nbdkit } from '../../support/nbd-process.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const MIB = 1024 ** 2
const SIZE = 64 * MIB
const RELEASE = { release: 3, root: new Uint8Array(32).fill(7) }
const NOTHING_YET = 'no restore has been made under this log yet'
const dir = useTempDir()
let files = 0

/** A log on storage that another process serves, as it is at first: all zeros. `args`: a filter and its parameters. */
async function remoteLog(size = logFileSize(SIZE), args: readonly string[] = []) {
  const path = dir(`export-${files++}`)
  await writeFile(path, '')
  await truncate(path, size)
  const serve = () => nbdkit(...args.slice(0, 1), 'file', path, ...args.slice(1))
  const server = await serve()
  const disk = imaginedDisk(SIZE)
  const at = async (uri = server.uri()) => {
    const { storage } = await openLogStorage(uri, logFileSize(SIZE))
    onTestFinished(() => storage.close())
    return new DurableBitmap({ storage, source: 'nbd', disk, release: RELEASE })
  }
  return { path, server, serve, at }
}

writeLogCompliance('DurableBitmap on another machine', async () => {
  const { at } = await remoteLog()
  const log = await at()
  await log.open()
  await log.reset(RangeSet.empty)
  await log.close()
  return { log: await at(), units: SIZE / 4096, again: () => at() }
})

describe('a log on another machine', () => {
  it('is unknown while it is empty, and good from the first reset on', async () => {
    const { at, path } = await remoteLog()
    const first = await at()
    expect(await first.open()).toEqual({ state: 'unknown', reason: NOTHING_YET })
    await first.mark(RangeSet.of(0, 5))
    await first.close()
    expect((await readFile(path)).every((byte) => byte === 0)).toBe(true)
    const second = await at()
    expect(await second.open()).toEqual({ state: 'unknown', reason: NOTHING_YET })
    await second.reset(RangeSet.of(7, 9))
    await second.close()
    const third = await at()
    expect(await third.open()).toEqual({ state: 'dirty', unclean: false })
    expect([...(await third.dirty()).runs()]).toEqual([[7, 9]])
    await third.close()
  })

  it('has a promised mark on the other machine before the mark resolves', async () => {
    const { at, server, serve } = await remoteLog()
    const log = await at()
    await log.open()
    await log.reset(RangeSet.empty)
    await log.mark(RangeSet.of(100, 101))
    await server.end('SIGKILL')
    // What cannot be logged must not be written.
    expect(await codeOf(log.mark(RangeSet.of(200, 201)))).toBe('NBD_UNREACHABLE')
    expect(await codeOf(log.mark(RangeSet.of(200, 201)))).toBe('NBD_UNREACHABLE')
    expect(await codeOf(log.close())).toBe('NBD_UNREACHABLE')
    const again = await at((await serve()).uri())
    expect(await again.open()).toEqual({ state: 'dirty', unclean: true })
    expect((await again.dirty()).has(100)).toBe(true)
    await again.close()
  })

  it('promises nothing when the other machine cannot write', async () => {
    const failing = dir(`failing-${files++}`)
    const args = ['--filter=error', 'error-pwrite=EIO', 'error-pwrite-rate=100%', `error-pwrite-file=${failing}`]
    const { at } = await remoteLog(undefined, args)
    const log = await at()
    await log.open()
    await log.reset(RangeSet.empty)
    await log.mark(RangeSet.of(1, 2))
    await writeFile(failing, '')
    expect(await codeOf(log.mark(RangeSet.of(9000, 9001)))).toBe('DISK_IO')
    expect(await codeOf(log.mark(RangeSet.of(9001, 9002)))).toBe('DISK_IO')
  })

  it('needs room', async () => {
    const { server } = await remoteLog(1024)
    await expect(openLogStorage(server.uri(), logFileSize(SIZE))).rejects.toMatchObject({
      code: 'DISK_TOO_SMALL',
      message: `${server.uri()} has 1024 bytes; the write log needs ${logFileSize(SIZE)}`,
    })
  })
})
