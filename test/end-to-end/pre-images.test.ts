import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 96
const GRANULE = 4096
const SPAN = BLOCK / GRANULE
const WAIT_MS = 60_000
const KILLS = 4
/** A restore here takes about a second. */
const LATEST_AFTER_MS = 1_000

describe('what sessions dirtied before', { timeout: 4 * WAIT_MS }, () => {
  const random = new Random(testSeed('pre-images'))
  let lab: Lab
  let model: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    model = await startMaster(lab, BLOCKS, random)
    for (const machine of ['logged', 'plain']) await joinMachine(lab, machine, model, await lab.invite('master'))
    await logged([])
    for (const machine of ['logged', 'plain']) await restore(machine)
  })
  afterAll(() => lab.close())

  /** A session of a machine with a write log, which writes to some granules of 4 KiB. */
  async function logged(granules: readonly number[]): Promise<void> {
    const disk = lab.path('logged.img')
    const monitor = await lab.start('logged', ['monitor', disk, '--nbd', `unix:${lab.path('nbd')}`])
    await monitor.event('monitoring')
    const writes = granules.flatMap((at) => ['-c', `write -P ${1 + random.below(255)} ${at * GRANULE} ${GRANULE}`])
    if (writes.length > 0) await runTool('qemu-io', ['-f', 'raw', ...writes, `nbd+unix:///?socket=${lab.path('nbd')}`])
    await monitor.stop()
  }

  /** A session of a machine without a log. */
  const plain = (...blocks: number[]): Promise<void> => dirty(lab.path('plain.img'), blocks, random)

  async function restore(machine: string): Promise<RestoreResult & { events: string[] }> {
    const { code, stdout, stderr, result, events } = await lab.run(machine, ['restore'])
    expect(code, `${stdout}\n${stderr}`).toBe(0)
    return { ...(result as unknown as RestoreResult), events: events.map(({ event }) => event) }
  }

  async function restoreAlone(machine: string): Promise<MeshEvent> {
    const { code, result } = await lab.run(machine, ['restore', '--wait', '1s'])
    expect(code).toBe(EXIT.network)
    return result!
  }

  async function stage(machine: string): Promise<unknown> {
    return (await lab.run(machine, ['status'])).result?.stage
  }

  async function expectWrong(machine: string, blocks: readonly number[]): Promise<void> {
    const disk = await readFile(lab.path(`${machine}.img`))
    const block = (image: Buffer, i: number): Buffer => image.subarray(i * BLOCK, (i + 1) * BLOCK)
    const all = Array.from({ length: BLOCKS }, (_, i) => i)
    expect(all.filter((i) => !block(disk, i).equals(block(model, i)))).toEqual(blocks)
  }

  const granulesOf = (...blocks: number[]): number[] => blocks.map((block) => block * SPAN + random.below(SPAN))
  const kept = (blocks: number): unknown => ({ blocks, bytes: blocks * BLOCK, dirtied: blocks })

  it('is undone without a network: it was kept as it came from a peer', async () => {
    // The first restore of an empty disk undid no session.
    expect(await stage('logged')).toBeUndefined()
    await logged([...granulesOf(3, 4, 50, 51), 70 * SPAN, 70 * SPAN + 9])
    expect(await restore('logged')).toMatchObject({ blocks: { dirty: 5, fetched: 5, staged: 0 } })
    expect(await stage('logged')).toEqual(kept(5))
    await lab.stop('master')
    // The same blocks, other granules of them.
    await logged(granulesOf(3, 4, 50, 51, 70))
    const receipt = await restore('logged')
    expect(receipt).toMatchObject({
      verified: true,
      blocks: { dirty: 5, staged: 5, fetched: 0, local: 0, copied: 0, zero: 0 },
      bytes: { received: 0 },
      log: { source: 'nbd', state: 'dirty' },
    })
    expect(receipt.events).not.toContain('listening')
    await expectWrong('logged', [])
  })

  it('costs a clean boot nothing', async () => {
    // Whoever opens the stage finds its index to be of another kind, and empties it.
    const index = await readFile(lab.path('logged', 'stage', 'index'))
    await writeFile(lab.path('logged', 'stage', 'index'), 'not opened')
    const before = await stat(lab.path('logged', 'stage', 'dirtied'))
    expect(await restore('logged')).toMatchObject({ blocks: { dirty: 0 }, log: { state: 'clean' } })
    expect(await readFile(lab.path('logged', 'stage', 'index'), 'utf8')).toBe('not opened')
    const { ino, mtimeMs } = await stat(lab.path('logged', 'stage', 'dirtied'))
    expect({ ino, mtimeMs }).toEqual({ ino: before.ino, mtimeMs: before.mtimeMs })
    await writeFile(lab.path('logged', 'stage', 'index'), index)
  })

  it('is undone as far as it is known; the error names how much is missing, and the rest comes later', async () => {
    await logged(granulesOf(3, 50, 20, 21))
    const { code, message } = await restoreAlone('logged')
    expect(code).toBe('PEERS_UNREACHABLE')
    expect(message).toContain('; 2 blocks are missing')
    await expectWrong('logged', [20, 21])
    await lab.serve('master', ['seed', lab.path('model.img')])
    expect(await restore('logged')).toMatchObject({ verified: true, blocks: { dirty: 2, fetched: 2 } })
    // They were counted when it was tried for the first time, and are kept now.
    expect(await stage('logged')).toEqual(kept(7))
    await expectWrong('logged', [])
  })

  it('is copied from the disk while the machine runs, if it was not kept then', async () => {
    await plain(3, 4, 50)
    expect(await restore('plain')).toMatchObject({ blocks: { dirty: 3, fetched: 3 } })
    for (const file of ['index', 'blocks']) await rm(lab.path('plain', 'stage', file))
    const up = await lab.serve('plain', ['up'])
    const holds = async (): Promise<void> => expect(await stage('plain')).toEqual(kept(3))
    await vi.waitFor(holds, { timeout: WAIT_MS, interval: 200 })
    await up.stop()
  })

  it('is never put on the disk if it is damaged in the stage, and is kept anew', async () => {
    await dirty(lab.path('plain', 'stage', 'blocks'), [0, 1, 2], random)
    for (const source of ['fetched', 'staged']) {
      await plain(3, 4)
      expect(await restore('plain')).toMatchObject({ verified: true, blocks: { dirty: 2, [source]: 2 } })
      await expectWrong('plain', [])
    }
  })

  it('leaves the disk right wherever a restore is killed', async () => {
    for (let kill = 0; kill < KILLS; kill++) {
      await plain(3, 30 + kill, 60 + random.below(10))
      const running = await lab.start('plain', ['restore'])
      const delay = new Promise((resolve) => setTimeout(resolve, random.below(LATEST_AFTER_MS)))
      await Promise.race([delay, running.exited])
      const { code, signal, stderr } = await running.stop('SIGKILL')
      expect(signal === 'SIGKILL' || code === 0, stderr).toBe(true)
      expect(await restore('plain')).toMatchObject({ verified: true })
      await expectWrong('plain', [])
    }
  })

  it('goes when a new release changes it, and stays otherwise', async () => {
    await plain(3, 4, 50)
    await restore('plain')
    const before = (await stage('plain')) as ReturnType<typeof kept> & { blocks: number }
    await lab.stop('master')
    await dirty(lab.path('model.img'), [3, 4, 90], random)
    model = await readFile(lab.path('model.img'))
    await lab.serve('master', ['seed', lab.path('model.img')])
    const up = await lab.serve('plain', ['up'])
    expect(await up.event('staged')).toMatchObject({ release: 2, wanted: 3, staged: 3, left: 0 })
    await up.stop()
    await lab.stop('master')
    await plain(50)
    const switched = await restore('plain')
    expect(switched).toMatchObject({ release: 2, verified: true, blocks: { dirty: 4, staged: 4, fetched: 0 } })
    await expectWrong('plain', [])
    // Blocks 3 and 4 are kept as the new release has them. Block 90, which no session dirtied, is not kept.
    expect(await stage('plain')).toEqual(before)
    await plain(3, 4, 50)
    expect(await restore('plain')).toMatchObject({ verified: true, blocks: { dirty: 3, staged: 3, fetched: 0 } })
    await plain(90)
    expect(await restoreAlone('plain')).toMatchObject({ code: 'PEERS_UNREACHABLE' })
  })
})
