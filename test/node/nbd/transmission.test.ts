import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { NBD_MAX_BYTES_UNDER_WAY } from '../../../node/nbd/limits.ts'
import { COMMAND, COMMAND_FLAG } from '../../../node/nbd/nbd-protocol.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import type { FaultyDevice } from '../../fakes/faulty-device.ts'
import { NBD_DISK_BYTES, serveLoggedDisk } from '../../support/nbd-fixture.ts'
import { RawNbd, type RawRequest, requestBytes } from '../../support/raw-nbd.ts'

const { read, write, flush, trim, cache, writeZeroes, blockStatus, disconnect } = COMMAND
const { fua, noHole, df, reqOne, fastZero } = COMMAND_FLAG
const [EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW] = [1, 5, 22, 28, 75]
const MIB = 1024 ** 2
const END = NBD_DISK_BYTES
const GRANULE = 4096

const bytes = (length: number, value = 0xab): Buffer => Buffer.alloc(length, value)

/** A device whose writes wait until they are let go. */
function held(device: FaultyDevice): { device: FaultyDevice; letGo: () => void; begun: () => number } {
  const gate = Promise.withResolvers<void>()
  let begun = 0
  const holding = Object.create(device) as FaultyDevice
  holding.write = async (offset, data) => {
    begun++
    await gate.promise
    return device.write(offset, data)
  }
  holding.flush = () => device.flush()
  return { device: holding, letGo: gate.resolve, begun: () => begun }
}

describe('NBD requests', () => {
  it('reads what was written, by simple and by structured replies', async () => {
    const { path } = await serveLoggedDisk()
    const structured = await RawNbd.ready(path)
    const simple = await RawNbd.ready(path, { structured: false })
    expect(await structured.ask({ command: write, offset: 5000, data: bytes(3000) })).toEqual({ error: 0, cookie: 7 })
    const { chunk, cookie } = await structured.ask({ command: read, offset: 4999, length: 3002, cookie: 2 ** 40 + 1 })
    expect([cookie, chunk?.type, chunk?.flags]).toEqual([2 ** 40 + 1, 1, 1])
    expect(chunk?.payload.readBigUInt64BE(0)).toBe(4999n)
    const expected = Buffer.concat([Buffer.of(0), bytes(3000), Buffer.of(0)])
    expect(chunk?.payload.subarray(8)).toEqual(expected)
    expect(await simple.ask({ command: read, offset: 4999, length: 3002 })).toEqual({ error: 0, cookie: 7 })
    expect(await simple.read(3002)).toEqual(expected)
  })

  it('serves 32 MiB at a time', async () => {
    const { path, device } = await serveLoggedDisk({ size: 33 * MIB })
    const client = await RawNbd.ready(path)
    const data = Buffer.alloc(32 * MIB)
    for (let at = 0; at < data.byteLength; at += 4096) data.writeUInt32LE(at, at)
    expect(await client.ask({ command: write, offset: 1000, data })).toMatchObject({ error: 0 })
    expect(device.bytes.subarray(1000, 1000 + 32 * MIB).equals(data)).toBe(true)
    const { chunk } = await client.ask({ command: read, offset: 1000, length: 32 * MIB })
    expect(chunk?.payload.subarray(8).equals(data)).toBe(true)
  })

  it('writes whole pages, however the data comes in', async () => {
    const { path, device } = await serveLoggedDisk()
    const client = await RawNbd.ready(path)
    const request = requestBytes({ command: write, offset: 100, data: bytes(20_000) })
    for (const [start, end] of [
      [0, 5],
      [5, 28 + 10],
      [38, 28 + 3996],
      [4024, 4025],
      [4025, 12_000],
      [12_000, 20_028],
    ]) {
      client.send(request.subarray(start, end))
      await sleep(5)
    }
    expect(await client.reply()).toMatchObject({ error: 0 })
    const offsets = device.journal.map((entry) => entry.split(' ').slice(1).map(Number))
    for (const [offset, length] of offsets.slice(0, -1)) expect((offset! + length!) % 4096).toBe(0)
    expect(offsets[0]![0]).toBe(100)
    expect(offsets.reduce((sum, [, length]) => sum + length!, 0)).toBe(20_000)
    expect(device.bytes.subarray(100, 20_100)).toEqual(bytes(20_000))
  })

  it('zeroes, and ignores a trim and a cache request but for the mark of the trim', async () => {
    const { path, device, log } = await serveLoggedDisk()
    const client = await RawNbd.ready(path)
    device.bytes.fill(9)
    const requests: RawRequest[] = [
      { command: writeZeroes, offset: 100, length: 100, cookie: 1 },
      { command: writeZeroes, flags: noHole | fua, offset: 8192, length: 4096, cookie: 2 },
      { command: trim, offset: 65536, length: 8192, cookie: 3 },
      { command: cache, offset: 0, length: END, cookie: 4 },
    ]
    for (const request of requests) expect(await client.ask(request)).toEqual({ error: 0, cookie: request.cookie })
    const expected = Buffer.alloc(END, 9).fill(0, 100, 200).fill(0, 8192, 12288)
    expect(device.bytes.equals(expected)).toBe(true)
    expect([...(await log.dirty()).runs()]).toEqual([
      [0, 1],
      [2, 3],
      [16, 18],
    ])
  })

  it('marks exactly the granules written, durably and before the write', async () => {
    const order: string[] = []
    const { path, device, log, storage } = await serveLoggedDisk()
    const tell = (name: string, one: FaultyDevice): void => {
      const push = one.journal.push.bind(one.journal)
      one.journal.push = (...entries) => {
        order.push(`${name} ${entries[0]?.split(' ')[0]}`)
        return push(...entries)
      }
    }
    tell('disk', device)
    tell('log', storage)
    const client = await RawNbd.ready(path)
    await client.ask({ command: write, offset: 3 * GRANULE + 1, data: bytes(GRANULE) })
    expect(order).toEqual(['log write', 'log flush', 'disk write'])
    await client.ask({ command: write, offset: 3 * GRANULE, data: bytes(GRANULE) })
    expect(order.slice(3)).toEqual(['disk write'])
    expect([...(await log.dirty()).runs()]).toEqual([[3, 5]])
  })

  it.each([
    ['write', { command: write, flags: fua, data: bytes(512) }, ['write 0 512', 'flush']],
    ['write zeroes', { command: writeZeroes, flags: fua, length: 512 }, ['write 0 512', 'flush']],
    ['trim', { command: trim, flags: fua, length: 512 }, ['flush']],
    ['flush', { command: flush, flags: fua }, ['flush']],
    ['read', { command: read, flags: fua, length: 512 }, []],
    ['cache', { command: cache, flags: fua, length: 512 }, []],
  ])('FUA on %s is durable when it is answered', async (_, request, journal) => {
    const { path, device } = await serveLoggedDisk()
    const client = await RawNbd.ready(path)
    expect(await client.ask(request)).toMatchObject({ error: 0 })
    expect(device.journal).toEqual(journal)
  })

  it('tells what is dirty and what is allocated', async () => {
    const { path } = await serveLoggedDisk()
    const client = await RawNbd.ready(path, { contexts: ['base:allocation', 'lab-mesh:dirty'] })
    await client.ask({ command: write, offset: 2 * GRANULE, data: bytes(GRANULE + 1) })
    const ask = async (request: Partial<RawRequest>): Promise<number[][]> => {
      client.request({ command: blockStatus, offset: 100, length: END - 100, ...request })
      const chunks = [(await client.reply()).chunk!, (await client.reply()).chunk!]
      expect(chunks.map(({ type, flags }) => [type, flags])).toEqual([
        [5, 0],
        [5, 1],
      ])
      return chunks.map(({ payload }) =>
        Array.from({ length: payload.byteLength / 4 }, (_, i) => payload.readUInt32BE(i * 4)),
      )
    }
    expect(await ask({})).toEqual([
      [1, END - 100, 0],
      [2, 2 * GRANULE - 100, 0, 2 * GRANULE, 1, END - 4 * GRANULE, 0],
    ])
    expect(await ask({ flags: reqOne })).toEqual([
      [1, END - 100, 0],
      [2, 2 * GRANULE - 100, 0],
    ])
    expect(await ask({ flags: reqOne | fua, offset: 3 * GRANULE, length: 10 })).toEqual([
      [1, 10, 0],
      [2, 10, 1],
    ])
  })

  const beyond = 2n ** 63n + 5n
  const most = 2n ** 64n - 512n
  it.each<[string, RawRequest, number]>([
    ['an unknown command', { command: 99, length: 512 }, EINVAL],
    ['a resize', { command: 8, length: 512 }, EINVAL],
    ['an unknown flag on a read', { command: read, flags: 1 << 9, length: 512 }, EINVAL],
    ['an unknown flag on a write', { command: write, flags: 1 << 9, data: bytes(512) }, EINVAL],
    ['a payload flag on a write', { command: write, flags: 1 << 5, data: bytes(512) }, EINVAL],
    ['no-hole on a write', { command: write, flags: noHole, data: bytes(512) }, EINVAL],
    ['don’t-fragment on a write', { command: write, flags: df, data: bytes(512) }, EINVAL],
    ['one-extent on a trim', { command: trim, flags: reqOne, length: 512 }, EINVAL],
    ['fast zero, which is not offered', { command: writeZeroes, flags: fastZero, length: 512 }, EINVAL],
    ['an unknown flag on a flush', { command: flush, flags: noHole }, EINVAL],
    ['an unknown flag on a cache request', { command: cache, flags: df, length: 512 }, EINVAL],
    ['a read of nothing', { command: read }, EINVAL],
    ['a write of nothing', { command: write, data: bytes(0) }, EINVAL],
    ['zeroing of nothing', { command: writeZeroes }, EINVAL],
    ['a trim of nothing', { command: trim }, EINVAL],
    ['a cache request of nothing', { command: cache }, EINVAL],
    ['a status of nothing', { command: blockStatus }, EINVAL],
    ['a status without a context', { command: blockStatus, length: 512 }, EINVAL],
    ['a read across the end', { command: read, offset: END - 512, length: 513 }, EINVAL],
    ['a read far beyond the end', { command: read, offset: beyond, length: 512 }, EINVAL],
    ['a read at the end of all numbers', { command: read, offset: most, length: 512 }, EINVAL],
    ['a write across the end', { command: write, offset: END - 512, data: bytes(513) }, ENOSPC],
    ['a write beyond the end', { command: write, offset: beyond, data: bytes(100_000) }, ENOSPC],
    ['zeroing across the end', { command: writeZeroes, offset: END - 512, length: 513 }, ENOSPC],
    ['a trim across the end', { command: trim, offset: END - 512, length: 513 }, EINVAL],
    ['a cache request across the end', { command: cache, offset: END - 512, length: 513 }, EINVAL],
    ['a status across the end', { command: blockStatus, offset: END - 512, length: 513 }, EINVAL],
    ['a read of more than 32 MiB', { command: read, length: 32 * MIB + 1 }, EOVERFLOW],
    ['a read of 4 GiB', { command: read, length: 2 ** 32 - 1 }, EOVERFLOW],
    ['a write of more than 32 MiB', { command: write, data: bytes(32 * MIB + 1) }, EINVAL],
  ])('refuses %s, changes and marks nothing, and goes on', async (_, request, error) => {
    const { path, device, log, faults } = await serveLoggedDisk()
    const structured = await RawNbd.ready(path)
    const refused = await structured.ask({ ...request, cookie: 11 })
    expect([refused.error, refused.cookie, refused.chunk?.flags]).toEqual([error, 11, 1])
    const simple = await RawNbd.ready(path, { structured: false })
    const expected = error === EOVERFLOW ? EINVAL : error
    expect(await simple.ask({ ...request, cookie: 11 })).toEqual({ error: expected, cookie: 11 })
    for (const client of [structured, simple])
      expect(await client.ask({ command: flush, cookie: 12 })).toMatchObject({ error: 0, cookie: 12 })
    expect([device.journal, log.dirtyCount, faults]).toEqual([['flush', 'flush'], 0, []])
  })

  it('takes don’t-fragment only with structured replies', async () => {
    const { path } = await serveLoggedDisk()
    const request = { command: read, flags: df, length: 65536 }
    expect(await (await RawNbd.ready(path)).ask(request)).toMatchObject({ error: 0, chunk: { type: 1, flags: 1 } })
    expect(await (await RawNbd.ready(path, { structured: false })).ask(request)).toEqual({ error: EINVAL, cookie: 7 })
  })

  it.each<[string, RawRequest, number]>([
    ['a write', { command: write, flags: fua, data: bytes(100_000) }, EPERM],
    ['a trim', { command: trim, length: 512 }, EPERM],
    ['zeroing', { command: writeZeroes, length: 512 }, EPERM],
    ['a read', { command: read, length: 512 }, 0],
    ['a flush', { command: flush }, 0],
  ])('answers %s on a read-only disk', async (_, request, error) => {
    const { path, device, log } = await serveLoggedDisk({ readOnly: true })
    const client = await RawNbd.ready(path)
    expect(await client.ask(request)).toMatchObject({ error })
    expect(await client.ask({ command: read, length: 512 })).toMatchObject({ error: 0 })
    expect([device.journal.filter((entry) => entry !== 'flush'), log.dirtyCount]).toEqual([[], 0])
  })

  it('tells what the disk does wrong, to the client concerned and to the operator', async () => {
    const { path, device, faults } = await serveLoggedDisk()
    const client = await RawNbd.ready(path)
    device.unreadable = RangeSet.of(0, 512)
    device.unwritable = RangeSet.of(65536, 65537)
    expect(await client.ask({ command: read, length: 4096 })).toMatchObject({ error: EIO })
    expect(await client.ask({ command: write, offset: 60_000, data: bytes(20_000) })).toMatchObject({ error: EIO })
    expect(await client.ask({ command: writeZeroes, offset: 60_000, length: 20_000 })).toMatchObject({ error: EIO })
    device.space = 100
    expect(await client.ask({ command: write, offset: 4096, data: bytes(512) })).toMatchObject({ error: ENOSPC })
    device.space = Number.POSITIVE_INFINITY
    device.failFlush = true
    expect(await client.ask({ command: flush })).toMatchObject({ error: EIO })
    expect(await client.ask({ command: write, flags: fua, data: bytes(512) })).toMatchObject({ error: EIO })
    const [io, full] = ['client 1: DISK_IO', 'client 1: DISK_FULL']
    expect(faults).toEqual([io, io, io, full, io, io])
    expect(await client.ask({ command: write, data: bytes(512) })).toMatchObject({ error: 0 })
  })

  it.each<[string, (storage: FaultyDevice) => void]>([
    ['cannot be written', (storage) => Object.assign(storage, { unwritable: RangeSet.of(0, storage.size) })],
    ['cannot be flushed', (storage) => Object.assign(storage, { failFlush: true })],
  ])('writes nothing that the log, which %s, does not know', async (_, breakIt) => {
    const { path, device, storage } = await serveLoggedDisk()
    const client = await RawNbd.ready(path)
    await client.ask({ command: write, offset: 0, data: bytes(GRANULE) })
    breakIt(storage)
    const changes: RawRequest[] = [
      { command: write, offset: GRANULE, data: bytes(GRANULE) },
      { command: write, offset: 0, data: bytes(200_000) },
      { command: writeZeroes, offset: 2 * GRANULE, length: GRANULE },
      { command: trim, offset: 3 * GRANULE, length: GRANULE },
      { command: write, offset: GRANULE, data: bytes(GRANULE) },
    ]
    const untouched = device.bytes.subarray(GRANULE)
    for (const request of changes) {
      expect(await client.ask(request)).toMatchObject({ error: EIO })
      expect(untouched.equals(Buffer.alloc(untouched.byteLength))).toBe(true)
    }
    expect(await client.ask({ command: read, length: GRANULE })).toMatchObject({ error: 0 })
  })

  it('does everything it was asked for before the client said goodbye', async () => {
    const { path, device, faults } = await serveLoggedDisk()
    const client = await RawNbd.ready(path)
    const requests = Array.from({ length: 200 }, (_, i) =>
      requestBytes({ command: i % 2 === 0 ? writeZeroes : read, offset: i * GRANULE, length: GRANULE, cookie: i }),
    )
    client.send(...requests, requestBytes({ command: disconnect }), requestBytes({ command: flush, cookie: 999 }))
    const cookies: number[] = []
    while (cookies.length < 200) cookies.push((await client.reply()).cookie)
    await client.disconnected()
    expect(cookies.sort((a, b) => a - b)).toEqual(requests.map((_, i) => i))
    expect(device.journal.filter((entry) => entry.startsWith('write'))).toHaveLength(100)
    expect([device.journal.includes('flush'), faults]).toEqual([false, []])
  })

  it('disconnects a client whose request has no magic number, and serves the others', async () => {
    const { path, faults } = await serveLoggedDisk()
    const other = await RawNbd.ready(path)
    const client = await RawNbd.ready(path)
    client.send(bytes(28))
    await client.disconnected()
    expect(faults).toEqual(['client 2: NBD_PROTOCOL'])
    expect(await other.ask({ command: read, length: 512 })).toMatchObject({ error: 0 })
  })

  it('survives clients that are gone in the middle of a write', async () => {
    const { path, device, log, faults, server } = await serveLoggedDisk()
    const other = await RawNbd.ready(path)
    for (const sent of [28, 30, 28 + 4096, 28 + 50_000]) {
      const client = await RawNbd.ready(path)
      client.send(requestBytes({ command: write, offset: 8192, data: bytes(100_000) }).subarray(0, sent))
      await sleep(20)
      client.close()
    }
    expect(await other.ask({ command: read, length: 512 })).toMatchObject({ error: 0 })
    await other.ask({ command: write, offset: 0, data: bytes(512) })
    await server.close()
    // Whatever of it was written is marked.
    expect(log.isMarked(2, 2 + Math.ceil(100_000 / GRANULE))).toBe(true)
    const written = 8192 + 50_000 - (50_000 % 4096)
    expect(device.bytes.subarray(8192, written)).toEqual(bytes(written - 8192))
    expect(faults).toEqual([])
  })

  it('does not let a client that reads nothing take memory without end, or hinder others', async () => {
    let read = 0
    const { path } = await serveLoggedDisk({
      size: 4 * MIB,
      wrap: (device) => {
        const counting = Object.create(device) as FaultyDevice
        counting.read = (offset, into) => {
          read += into.byteLength
          return device.read(offset, into)
        }
        counting.flush = () => device.flush()
        return counting
      },
    })
    const slow = await RawNbd.ready(path)
    slow.socket.pause()
    for (let i = 0; i < 200; i++) slow.request({ command: COMMAND.read, length: MIB, cookie: i })
    const other = await RawNbd.ready(path)
    await expect.poll(() => read).toBeGreaterThanOrEqual(NBD_MAX_BYTES_UNDER_WAY)
    for (let i = 0; i < 20; i++) expect(await other.ask({ command: flush })).toMatchObject({ error: 0 })
    // What the sockets' own buffers took has made room for a little more.
    expect(read).toBeLessThanOrEqual(NBD_MAX_BYTES_UNDER_WAY + 2 * MIB)
    slow.socket.resume()
    for (let i = 0; i < 200; i++) expect(await slow.reply()).toMatchObject({ error: 0 })
    expect(read).toBe(200 * MIB)
  })
})

describe('the end of an NBD server', () => {
  it('answers what is under way, and refuses what was not begun', async () => {
    let gate: ReturnType<typeof held> | undefined
    const { path, server, device } = await serveLoggedDisk({
      wrap: (one) => {
        gate = held(one)
        return gate.device
      },
    })
    const client = await RawNbd.ready(path)
    for (let i = 0; i < 100; i++) client.request({ command: writeZeroes, offset: i * 4096, length: 4096, cookie: i })
    await expect.poll(() => gate?.begun()).toBe(64)
    const closed = server.close()
    const refused = new Map<number, number>()
    for (let i = 0; i < 36; i++) {
      const { cookie, error } = await client.reply()
      refused.set(cookie, error)
    }
    expect([...refused]).toEqual(Array.from({ length: 36 }, (_, i) => [64 + i, 108]))
    gate?.letGo()
    for (let i = 0; i < 64; i++) expect(await client.reply()).toMatchObject({ error: 0 })
    await closed
    await client.disconnected()
    expect(device.journal).toHaveLength(64)
  })

  it('waits for writes of clients that are gone', async () => {
    let gate: ReturnType<typeof held> | undefined
    const { path, server, device } = await serveLoggedDisk({
      wrap: (one) => {
        gate = held(one)
        return gate.device
      },
    })
    const client = await RawNbd.ready(path)
    client.request({ command: write, data: bytes(4096) })
    await expect.poll(() => gate?.begun()).toBe(1)
    client.close()
    await sleep(20)
    let isClosed = false
    const closed = server.close().then(() => {
      isClosed = true
    })
    await sleep(50)
    expect(isClosed).toBe(false)
    gate?.letGo()
    await closed
    expect(device.journal).toEqual(['write 0 4096'])
  })

  it('does not wait for a client that takes no answers, or none that has nothing to ask', async () => {
    const { path, server } = await serveLoggedDisk()
    const slow = await RawNbd.ready(path)
    slow.socket.pause()
    for (let i = 0; i < 40; i++) slow.request({ command: read, length: MIB })
    const silent = await RawNbd.connect(path)
    const idle = await RawNbd.ready(path)
    await sleep(50)
    const begun = performance.now()
    await server.close()
    await Promise.all([silent.disconnected(), idle.disconnected()])
    expect(performance.now() - begun).toBeLessThan(20_000)
    slow.close()
  })
})
