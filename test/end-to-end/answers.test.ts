import { open } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 64
/** A disk of holes: it takes no room, and hashing it takes minutes. */
const HUGE_BYTES = 256 * 1024 ** 3

describe('commands answer while another one works', { timeout: 240_000 }, () => {
  const random = new Random(testSeed('answers'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    const file = await open(lab.path('huge.img'), 'w')
    await file.truncate(HUGE_BYTES)
    await file.close()
    await startMaster(lab, BLOCKS, random)
    await lab.stop('master')
    await lab.serve('master', ['seed', lab.path('model.img'), '--max-upload', '1Mbit'])
    await joinMachine(lab, 'pc1', new Uint8Array(BLOCKS * BLOCK), await lab.invite('master'))
  })
  afterAll(() => lab.close())

  const isAt = (process: MeshProcess, wanted: string) =>
    process.when(({ event, phase }) => event === 'progress' && phase === wanted)

  it('hashing, for the first time: an invitation, status, peers, receipts; others hear what runs', async () => {
    const seed = await lab.start('first', ['seed', lab.path('huge.img'), '--image', 'huge'])
    await isAt(seed, 'hash')
    expect(await lab.invite('first')).toMatch(/^mesh-/)
    const hashing = { phase: 'hash', totalBytes: HUGE_BYTES }
    expect(await lab.ok('first', ['status'])).toMatchObject({ running: true, command: 'seed', work: hashing })
    // Who asks is the only one that does, and nothing waits for it.
    expect(await lab.ok('first', ['status'])).toMatchObject({ callers: { connections: 1, waitingBytes: 0 } })
    expect(await lab.ok('first', ['peers'])).toMatchObject({ peers: [] })
    expect(await lab.ok('first', ['receipts'])).toMatchObject({ receipts: [] })
    const known = await lab.ok('first', ['config', 'show'])
    expect(known.settings).toContainEqual({ name: 'site', value: 'lab', from: 'remembered' })
    const { code, result } = await lab.run('first', ['restore'])
    expect([code, result?.code]).toEqual([EXIT.state, 'STATE_IN_USE'])
    expect(result?.message).toMatch(/in use by mesh seed \(pid \d+\), since .*: hashing the disk, \d+ % done$/)
    expect(seed.events.some(({ event }) => event === 'published')).toBe(false)
    expect((await seed.stop()).code).toBe(EXIT.interrupted)
  })

  it('hashing without a network: what cannot be answered says what runs, and how far it is', async () => {
    const seed = await lab.start('once', ['seed', lab.path('huge.img'), '--image', 'huge', '--once'])
    await isAt(seed, 'hash')
    const { code, result, stderr } = await lab.run('once', ['invite'])
    expect([code, result?.code]).toEqual([EXIT.state, 'STATE_BUSY'])
    expect(stderr).toMatch(
      /^mesh: this cannot be answered now: .* is in use by mesh seed \(pid \d+\), since .* % done\n/,
    )
    expect(await lab.ok('once', ['status'])).toMatchObject({ running: true, command: 'seed' })
    await seed.stop()
  })

  it('restoring: all that only reads', async () => {
    const restore = await lab.start('pc1', ['restore'])
    await isAt(restore, 'restore')
    const restoring = { phase: 'restore', totalBytes: BLOCKS * BLOCK }
    const status = await lab.ok('pc1', ['status'])
    expect(status).toMatchObject({
      running: true,
      command: 'restore',
      peers: 1,
      work: restoring,
      memberMost: { connections: 8, streams: 8 },
    })
    expect(await lab.ok('pc1', ['receipts'])).toMatchObject({ receipts: [] })
    expect(await lab.ok('pc1', ['peers'])).toMatchObject({ peers: [{ name: 'master', connected: true }] })
    expect(await lab.ok('pc1', ['releases'])).toMatchObject({ releases: [{ release: 1, onDisk: false }] })
    expect(await lab.ok('pc1', ['log', 'show'])).toMatchObject({ source: 'scan' })
    expect((await lab.run('pc1', ['invite'])).result).toMatchObject({ code: 'STATE_NOT_MASTER' })
    expect(restore.child.exitCode).toBeNull()
    await restore.stop()
    // What was cut off is listed, and nothing answers for it any more.
    expect(await lab.ok('pc1', ['status'])).toMatchObject({ running: false, lastRestore: { verified: false } })
  })

  it('a roll that waits for its window, on a machine where nothing else runs', async () => {
    const token = String((await lab.ok('master', ['invite', '--role', 'operator'])).token)
    await lab.ok('office', ['join', token, '--name', 'office'])
    await lab.serve('pc1', ['up', '--in-use-check', 'none', '--reset-command', 'true'])
    const hour = (ahead: number): string => `${String((new Date().getHours() + ahead) % 24).padStart(2, '0')}:00`
    const group = ['--group', 'lab']
    const roll = await lab.start('office', [
      'roll',
      'start',
      ...group,
      '--window',
      `${hour(6)}-${hour(7)}`,
      '--holders',
      '0',
    ])
    await roll.when(({ event, why }) => event === 'roll' && String(why).startsWith('outside its window'))
    const waiting = { state: 'running', why: expect.stringMatching(/^outside its window, waits until /) as string }
    expect(await lab.ok('office', ['roll', 'status', ...group])).toMatchObject({ roll: waiting })
    expect(await lab.ok('office', ['status'])).toMatchObject({ running: true, command: 'roll start' })
    expect(await lab.ok('office', ['receipts', '--now'])).toMatchObject({ event: 'receipts' })
    const up = await lab.run('office', ['up'])
    expect(up.result?.message).toMatch(
      /in use by mesh roll start \(pid \d+\), since .*: the roll is running: outside its window/,
    )
    expect(await lab.ok('office', ['roll', 'abort', ...group])).toMatchObject({ heard: true })
    expect((await roll.exited).code).toBe(EXIT.unavailable)
  })

  it('commands that only read are waited for, and each other', async () => {
    await lab.stop('pc1')
    const outcomes = await Promise.all(Array.from({ length: 4 }, () => lab.run('pc1', ['status'])))
    expect(outcomes.map(({ code }) => code)).toEqual([0, 0, 0, 0])
  })
})
