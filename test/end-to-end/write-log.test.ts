import { open, readFile, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { Lab, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { nbdkit } from '../support/nbd-process.ts'
import { testSeed } from '../support/seed.ts'

const GRANULE = 4096
const BLOCKS = 200

describe('a restore from the write log', () => {
  const random = new Random(testSeed('write log'))
  let lab: Lab
  let image: Buffer
  let disk: string
  let socket: string

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master', 4)
    await joinMachine(lab, 'pc1', image, token)
    await joinMachine(lab, 'pc2', image, token)
    await lab.ok('pc2', ['restore'])
    disk = lab.path('pc1.img')
    socket = lab.path('nbd.sock')
    await session([])
    // The first one scans, and the log begins with it.
    expect(await restore()).toMatchObject({ blocks: { dirty: BLOCKS }, log: { source: 'nbd', state: 'unknown' } })
  })
  afterAll(() => lab.close())

  async function startMonitor(options: readonly string[] = []): Promise<MeshProcess> {
    const monitor = await lab.start('pc1', ['monitor', disk, '--nbd', `unix:${socket}`, ...options])
    await monitor.event('monitoring')
    return monitor
  }

  /** A session that writes random granules through the monitor and ends in one way or another. */
  async function session(
    granules: readonly number[],
    end: 'SIGTERM' | 'SIGKILL' = 'SIGTERM',
    options: readonly string[] = [],
  ): Promise<void> {
    const monitor = await startMonitor(options)
    try {
      if (granules.length > 0) await writeThrough(granules)
    } finally {
      await monitor.stop(end)
    }
  }

  async function writeThrough(granules: readonly number[]): Promise<void> {
    const commands = granules.flatMap((granule) => [
      '-c',
      `write -P ${1 + random.below(255)} ${granule * GRANULE} ${GRANULE}`,
    ])
    await runTool('qemu-io', ['-f', 'raw', ...commands, `nbd+unix:///?socket=${socket}`])
  }

  /** Writes to the disk so that neither the log nor the time of change tells. */
  async function tamper(granule: number): Promise<void> {
    const { atime, mtime } = await stat(disk)
    const file = await open(disk, 'r+')
    await file.write(random.bytes(GRANULE), 0, GRANULE, granule * GRANULE)
    await file.close()
    await utimes(disk, atime, mtime)
  }

  /** Forgets what earlier sessions dirtied, which a restore would take from the stage. */
  const forgetStage = (): Promise<void> => rm(lab.path('pc1', 'stage'), { recursive: true, force: true })

  async function restore(): Promise<RestoreResult & { events: string[] }> {
    const { code, stderr, result, events } = await lab.run('pc1', ['restore'])
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect((await readFile(disk)).equals(image)).toBe(true)
    return { ...(result as unknown as RestoreResult), events: events.map(({ event }) => String(event)) }
  }

  it('does nothing, and starts no network, when the log is clean', async () => {
    const receipt = await restore()
    expect(receipt).toMatchObject({
      verified: true,
      blocks: { dirty: 0, fetched: 0, audited: 64 },
      bytes: { written: 0, received: 0 },
      log: { source: 'nbd', state: 'clean' },
    })
    expect(receipt.events).not.toContain('listening')
  })

  it.each(['SIGTERM', 'SIGKILL'] as const)('fetches only dirty granules after a session ended by %s', async (end) => {
    const granules = Array.from({ length: 60 }, () => random.below(BLOCKS * 16))
    await session(granules, end)
    const bytes = new Set(granules).size * GRANULE
    const blocks = new Set(granules.map((granule) => Math.floor(granule / 16))).size
    await forgetStage()
    const receipt = await restore()
    expect(receipt).toMatchObject({
      verified: true,
      blocks: { dirty: blocks, fetched: blocks },
      bytes: { received: bytes, written: bytes },
      log: { source: 'nbd', state: 'dirty' },
    })
    expect(receipt.bytes.read).toBe((blocks + receipt.blocks.audited) * BLOCK)
    expect(receipt.log.missed).toBeUndefined()
    expect(await restore()).toMatchObject({ log: { state: 'clean' }, blocks: { dirty: 0 } })
  })

  it('finds a neighbour of a dirty granule that the log knows nothing of, and scans', async () => {
    await session([5 * 16], 'SIGKILL')
    await tamper(5 * 16 + 3)
    await tamper(90 * 16)
    const receipt = await restore()
    expect(receipt).toMatchObject({ log: { state: 'dirty', missed: 5 }, blocks: { dirty: 2 } })
    expect(receipt.events).toContain('warning')
    expect(receipt.peers.every(({ bad }) => bad === 0)).toBe(true)
    expect(await restore()).toMatchObject({ log: { state: 'clean' } })
  })

  it('scans when the disk was written past the monitor', async () => {
    const file = await open(disk, 'r+')
    await file.write(random.bytes(10), 0, 10, 7)
    await file.close()
    expect(await restore()).toMatchObject({
      log: { state: 'unknown', reason: 'the disk was written after the log was closed' },
      blocks: { dirty: 1 },
    })
  })

  it('scans when the log is gone, and goes on with a new one', async () => {
    const log = await open(lab.path('pc1', 'write-log', 'bitmap'), 'r+')
    await log.truncate(100)
    await log.close()
    expect(await restore()).toMatchObject({ log: { state: 'unknown', reason: expect.stringContaining('cut short') } })
    expect(await restore()).toMatchObject({ log: { state: 'clean' } })
  })

  it('refuses to run beside a monitor, and names what is in use', async () => {
    const monitor = await startMonitor()
    const { code, result } = await lab.run('pc1', ['restore'])
    expect({ code, error: result?.code }).toEqual({ code: 4, error: 'STATE_IN_USE' })
    await monitor.stop()
  })

  it('never offers what a session dirtied, and repairs what changed without the log’s knowledge', async () => {
    const monitor = await startMonitor()
    await writeThrough([0, 16, 17])
    const up = await lab.serve('pc1', ['up'])
    expect(await up.event('serving')).toMatchObject({ blocks: BLOCKS - 2 })
    await writeThrough([160])
    await vi.waitFor(async () => {
      expect((await lab.ok('pc1', ['status'])).blocks).toMatchObject({ held: BLOCKS - 3, changed: 3 })
    }, 20_000)
    // pc2 comes to know pc1 by the master.
    await dirty(lab.path('pc2.img'), [3], random)
    await lab.ok('pc2', ['restore'])
    // Somebody asks for a block that is no longer what everybody believes, and nobody else could give.
    await tamper(50 * 16 + 1)
    await lab.stop('master')
    await dirty(lab.path('pc2.img'), [50], random)
    expect(await lab.run('pc2', ['restore', '--wait', '2s'])).toMatchObject({ code: 7 })
    const warning = await up.when(
      ({ event, text }) => event === 'warning' && /block 50 .* changed without/.test(String(text)),
    )
    expect(warning).toBeDefined()
    await up.stop()
    await monitor.stop('SIGKILL')
    await lab.serve('master', ['up'])
    const reason = /^block 50 changed without the log’s knowledge/
    expect(await restore()).toMatchObject({
      log: { state: 'unknown', reason: expect.stringMatching(reason) },
      blocks: { dirty: 4 },
    })
    expect(await restore()).toMatchObject({ log: { state: 'clean' } })
  })
  it('shows, exports and forgets the log', async () => {
    expect(await lab.ok('pc1', ['log', 'show'])).toMatchObject({ source: 'nbd', state: 'clean', dirty: 0, release: 1 })
    const monitor = await startMonitor()
    await writeThrough([7, 8, 9, BLOCKS * 16 - 1])
    const shown = await lab.ok('pc1', ['log', 'show'])
    expect(shown).toMatchObject({ state: 'dirty', dirty: 4, units: BLOCKS * 16, unitSize: GRANULE, inUse: true })
    const map = shown.map as number[]
    expect([map.length, map[0], map.at(-1)]).toEqual([64, 3, 1])
    expect(await lab.run('pc1', ['log', 'forget'])).toMatchObject({ code: 4, result: { code: 'STATE_IN_USE' } })
    await monitor.stop()
    const file = lab.path('dirty.json')
    await lab.ok('pc1', ['log', 'export', file])
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      event: 'log-export',
      ranges: [
        [7, 10],
        [BLOCKS * 16 - 1, BLOCKS * 16],
      ],
    })
    expect(await lab.ok('pc1', ['log', 'forget'])).toEqual({ event: 'log-forgotten', existed: true })
    expect(await lab.run('pc1', ['log', 'export'])).toMatchObject({ code: 4, result: { code: 'STATE_MISSING' } })
    expect(await lab.ok('pc1', ['log', 'show'])).toMatchObject({ source: 'scan', state: 'unknown' })
    expect(await restore()).toMatchObject({ log: { source: 'scan', state: 'unknown' }, blocks: { dirty: 2 } })
  })
  it('keeps the log nowhere where something else is, and begins anew where one was kept before', async () => {
    const precious = lab.path('precious.txt')
    await writeFile(precious, 'do not lose this')
    for (const place of [precious, disk]) {
      const refused = await lab.run('pc1', ['monitor', disk, '--nbd', `unix:${socket}`, '--log', place])
      expect(refused).toMatchObject({ code: 3, result: { code: 'LOG_PLACE_TAKEN' } })
    }
    expect(await readFile(precious, 'utf8')).toBe('do not lose this')
    expect((await readFile(disk)).equals(image)).toBe(true)
    // A call that fails changes nothing of the log that there is.
    const before = await lab.ok('pc1', ['log', 'show'])
    const nowhere = await lab.run('pc1', [
      'monitor',
      disk,
      '--nbd',
      `unix:${lab.path('no', 'such')}`,
      '--log',
      `${disk}.log`,
    ])
    expect(nowhere).toMatchObject({ code: 2, result: { code: 'NBD_ADDRESS_INVALID' } })
    expect(await lab.ok('pc1', ['log', 'show'])).toEqual(before)
    const [a, b] = [lab.path('log-a'), lab.path('log-b')]
    await session([], 'SIGTERM', ['--log', a])
    expect(await restore()).toMatchObject({ log: { source: 'nbd', state: 'unknown' } })
    await session([33], 'SIGKILL', ['--log', b])
    // What was written in between is not in it.
    await session([], 'SIGTERM', ['--log', a])
    expect(await restore()).toMatchObject({ log: { state: 'unknown' }, blocks: { dirty: 1 } })
    await rename(a, `${a}.gone`)
    expect(await restore()).toMatchObject({ log: { source: 'nbd', state: 'unknown' }, blocks: { dirty: 0 } })
  })
  it('goes on without a log on another machine that is off, and by it when that is back', async () => {
    const remote = lab.path('remote.sock')
    const keep = lab.path('remote.log')
    await writeFile(keep, Buffer.alloc(1024 ** 2))
    const keeper = await nbdkit('file', keep)
    await symlink(keeper.socket, remote)
    const uri = `nbd+unix:///?socket=${remote}`
    await session([], 'SIGTERM', ['--log', uri])
    expect(await restore()).toMatchObject({ log: { source: 'nbd', state: 'unknown' } })
    await session([40, 41], 'SIGTERM')
    await keeper.end()
    await tamper(90 * 16)
    const reason = expect.stringMatching(/the write log cannot be had: .* cannot be reached/)
    expect(await restore()).toMatchObject({ log: { source: 'scan', state: 'unknown', reason }, blocks: { dirty: 2 } })
    await rm(remote)
    await symlink((await nbdkit('file', keep)).socket, remote)
    // What was put right without it is still marked, and right already; what it never knew of is right, too.
    const receipt = await restore()
    expect(receipt).toMatchObject({ log: { source: 'nbd' }, blocks: { fetched: expect.any(Number) } })
    expect(await restore()).toMatchObject({ log: { source: 'nbd', state: 'clean' } })

    // One that was cut off without the log has found what that may not know of.
    await session([50], 'SIGKILL')
    await rm(remote)
    await tamper(91 * 16)
    await lab.stop('master')
    // Nobody has the blocks, so it ends half-way.
    await forgetStage()
    expect(await lab.run('pc1', ['restore', '--wait', '1s'])).toMatchObject({ code: 6 })
    await lab.serve('master', ['up'])
    await symlink((await nbdkit('file', lab.path('remote.log'))).socket, remote)
    const doubt = expect.stringMatching(/^a restore without the log was cut off/)
    expect(await restore()).toMatchObject({
      log: { source: 'nbd', state: 'unknown', reason: doubt },
      blocks: { dirty: 2 },
    })
    expect(await restore()).toMatchObject({ log: { source: 'nbd', state: 'clean' } })
  })
})
