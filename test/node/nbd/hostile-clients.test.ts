import { connect } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { NBD_MAX_CONNECTIONS, NBD_OWN_BYTES, NBD_SHARED_BYTES, NBD_STALL_MS } from '../../../node/nbd/limits.ts'
import { COMMAND, OPTION } from '../../../node/nbd/nbd-protocol.ts'
import { NbdServer } from '../../../node/nbd/nbd-server.ts'
import { serveLoggedDisk } from '../../support/nbd-fixture.ts'
import { goData, RawNbd } from '../../support/raw-nbd.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MIB = 1024 ** 2
const DISK_BYTES = 4 * MIB
/** What the buffers of one socket take beside the server's memory. */
const SOCKET_BYTES = MIB

const { read, flush, blockStatus } = COMMAND

/** A served disk, and how many bytes were read from it. */
async function countReads(size = DISK_BYTES): Promise<{ path: string; faults: string[]; readBytes: () => number }> {
  let bytes = 0
  const served = await serveLoggedDisk({
    size,
    wrap: (device) => {
      const counting = Object.create(device) as typeof device
      counting.read = (offset, into) => {
        bytes += into.byteLength
        return device.read(offset, into)
      }
      return counting
    },
  })
  return { path: served.path, faults: served.faults, readBytes: () => bytes }
}

/** Clients that ask for much and read nothing. */
async function neverReading(path: string, count: number, length = MIB): Promise<RawNbd[]> {
  return Promise.all(
    Array.from({ length: count }, async () => {
      const client = await RawNbd.ready(path)
      client.socket.pause()
      for (let i = 0; i < 64; i++) client.request({ command: read, length, cookie: i })
      return client
    }),
  )
}

/** Waits until a number has not changed for a while: until then whoever may go on has gone on. */
async function settled(count: () => number): Promise<number> {
  for (let before = -1; ; ) {
    for (let i = 0; i < 1000; i++) await turn()
    if (count() === before) return before
    before = count()
  }
}

describe('NBD clients that take no answers', () => {
  afterEach(() => vi.useRealTimers())

  it('have a bounded part of the memory, all together', async () => {
    const { path, readBytes } = await countReads()
    await neverReading(path, 16)
    await expect.poll(readBytes).toBeGreaterThanOrEqual(NBD_SHARED_BYTES)
    expect(await settled(readBytes)).toBeLessThanOrEqual(NBD_SHARED_BYTES + 16 * (NBD_OWN_BYTES + SOCKET_BYTES))
  })

  it('leave each other client room for small requests, and go when a large one has waited', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    const { path, faults, readBytes } = await countReads()
    const hostile = await neverReading(path, 40)
    await settled(readBytes)
    const honest = await RawNbd.ready(path)
    for (let i = 0; i < 20; i++) expect(await honest.ask({ command: read, length: 65_536 })).toMatchObject({ error: 0 })
    const large = honest.ask({ command: read, length: 4 * MIB })
    await settled(readBytes)
    expect(faults).toEqual([])
    for (let i = 0; i < 2; i++) {
      vi.advanceTimersByTime(NBD_STALL_MS)
      await settled(readBytes)
    }
    expect((await large).chunk?.payload.byteLength).toBe(4 * MIB + 8)
    expect(faults.length).toBeGreaterThan(0)
    for (const fault of faults)
      expect(fault).toMatch(/^client \d+: takes no answers for 5 s, and others need the room$/)
    for (const client of hostile) client.close()
    expect(await honest.ask({ command: read, length: 4096 })).toMatchObject({ error: 0 })
  })

  it('let a new client with a smaller request go first', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    const { path, faults, readBytes } = await countReads(32 * MIB)
    const hostile = await neverReading(path, 6, 32 * MIB)
    await settled(readBytes)
    const honest = await RawNbd.ready(path)
    const answer = honest.ask({ command: read, length: MIB })
    await settled(readBytes)
    vi.advanceTimersByTime(NBD_STALL_MS)
    expect(await answer).toMatchObject({ error: 0 })
    expect(faults).toHaveLength(1)
    for (const client of hostile) client.close()
  })

  it('are served on when they are only slow', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    const { path, faults, readBytes } = await countReads()
    const slow = await neverReading(path, 34)
    await settled(readBytes)
    vi.advanceTimersByTime(NBD_STALL_MS - 1)
    for (const client of slow) client.socket.resume()
    const takeAll = async (client: RawNbd): Promise<void> => {
      for (let i = 0; i < 64; i++) expect(await client.reply()).toMatchObject({ error: 0 })
    }
    await Promise.all(slow.map(takeAll))
    expect(faults).toEqual([])
  })

  it('have a bounded part of the memory for what status requests tell, too', async () => {
    const { path } = await serveLoggedDisk({ size: 1024 * MIB })
    const contexts = ['base:allocation', 'lab-mesh:dirty']
    const hostile = await Promise.all(Array.from({ length: 40 }, () => RawNbd.ready(path, { contexts })))
    for (const client of hostile) {
      client.socket.pause()
      for (let i = 0; i < 64; i++) client.request({ command: blockStatus, length: 1024 * MIB })
    }
    const honest = await RawNbd.ready(path)
    expect(await honest.ask({ command: flush })).toMatchObject({ error: 0 })
    for (const client of hostile) client.close()
  })
})

describe('NBD clients that hold places', () => {
  it('give way to a new one: first who has never asked, then who asked longest ago', async () => {
    const { path, faults } = await serveLoggedDisk()
    const early = await RawNbd.ready(path)
    expect(await early.ask({ command: flush })).toMatchObject({ error: 0 })
    const silent = await RawNbd.connect(path)
    const idle = await Promise.all(Array.from({ length: NBD_MAX_CONNECTIONS - 2 }, () => RawNbd.ready(path)))
    const one = await RawNbd.ready(path)
    expect(await one.ask({ command: flush })).toMatchObject({ error: 0 })
    await silent.disconnected()
    for (const client of idle) expect(await client.ask({ command: flush })).toMatchObject({ error: 0 })
    expect(await early.ask({ command: flush })).toMatchObject({ error: 0 })
    expect(await (await RawNbd.ready(path)).ask({ command: flush })).toMatchObject({ error: 0 })
    await one.disconnected()
    expect(faults).toEqual([
      'client 2: gives way to a new client: 64 are connected, and this one was idle the longest',
      'client 65: gives way to a new client: 64 are connected, and this one was idle the longest',
    ])
  })

  it('keep them while the disk works for them, and a new one is refused', async () => {
    const gate = Promise.withResolvers<void>()
    const { path, faults } = await serveLoggedDisk({
      wrap: (device) => {
        const holding = Object.create(device) as typeof device
        holding.read = async (offset, into) => {
          await gate.promise
          return device.read(offset, into)
        }
        return holding
      },
    })
    const busy = await Promise.all(Array.from({ length: NBD_MAX_CONNECTIONS }, () => RawNbd.ready(path)))
    const answers = busy.map((client) => client.ask({ command: read, length: 4096 }))
    for (let i = 0; i < 2000; i++) await turn()
    await (await RawNbd.connect(path)).disconnected()
    expect(faults).toEqual(['a new client: refused, as 64 are connected, and none is idle'])
    gate.resolve()
    for (const answer of answers) expect(await answer).toMatchObject({ error: 0 })
  })

  it('are not read before there is an export', async () => {
    const path = `${await temporaryDirectory()}/nbd`
    const exports = Promise.withResolvers<never[]>()
    const server = await NbdServer.listen({ unix: path }, { exports: exports.promise })
    const socket = connect(path)
    socket.on('error', () => undefined)
    const sent = 64 * MIB
    socket.write(Buffer.alloc(sent))
    await settled(() => socket.writableLength + socket.bytesWritten)
    expect(socket.writableLength).toBeGreaterThan(0)
    socket.destroy()
    exports.resolve([])
    await server.close()
  })

  it('agree by many long options', async () => {
    const { path } = await serveLoggedDisk()
    const client = await RawNbd.connect(path)
    await client.greet()
    for (let i = 0; i < 8; i++) await client.option(OPTION.go, Buffer.concat([goData('x'), Buffer.alloc(60_000)]))
    expect(await client.option(OPTION.go, goData(''))).not.toEqual([])
    expect(await client.ask({ command: flush })).toMatchObject({ error: 0 })
  })
})
