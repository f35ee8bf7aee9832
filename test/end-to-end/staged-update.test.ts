import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { isLive } from '../../node/agent/answer/replies.ts'
import type { StagingStatus } from '../../node/agent/machine/events.ts'
import { callControl } from '../../node/control/control-client.ts'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import type { Receipt } from '../../protocol/receipt.ts'
import { Lab, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const GRANULE = 4096
const BLOCKS = 160
const WAIT_MS = 60_000
const KILLS = 8
/** Kills come some time after one of these. */
const MOMENTS = ['start', 'listening', 'peer', 'peer', 'peer'] as const
const LATEST_AFTER_MS = 3_000
/** Half of the blocks take some seconds. */
const SLOW = ['--max-upload', '8Mbit']
const MACHINES = ['pc1', 'pc2'] as const

type Printed = RestoreResult & { readonly events: readonly string[] }

describe('a release that is staged while the machines run', { timeout: 4 * WAIT_MS }, () => {
  const random = new Random(testSeed('staged update'))
  let lab: Lab
  let model: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    model = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master')
    for (const machine of MACHINES) {
      await joinMachine(lab, machine, model, token)
      await (await monitor(machine)).stop()
      await restore(machine)
    }
  })
  afterAll(() => lab.close())

  async function monitor(machine: string): Promise<MeshProcess> {
    const address = `unix:${lab.path(`${machine}.nbd`)}`
    const started = await lab.start(machine, ['monitor', lab.path(`${machine}.img`), '--nbd', address])
    await started.event('monitoring')
    return started
  }

  async function write(machine: string, granules: Iterable<number>): Promise<void> {
    const commands = [...granules].flatMap((at) => [
      '-c',
      `write -P ${1 + random.below(255)} ${at * GRANULE} ${GRANULE}`,
    ])
    await runTool('qemu-io', ['-f', 'raw', ...commands, `nbd+unix:///?socket=${lab.path(`${machine}.nbd`)}`])
  }

  async function restore(machine: string, ...args: string[]): Promise<Printed> {
    const { code, stdout, stderr, result, events } = await lab.run(machine, ['restore', ...args])
    expect(code, `${stdout}\n${stderr}`).toBe(0)
    return { ...(result as unknown as RestoreResult), events: events.map(({ event }) => event) }
  }

  /** The machine has signed what the restore said, and the counts add up to what was restored. */
  async function expectSigned(machine: string, { blocks, log, beyondImage }: RestoreResult): Promise<void> {
    const { receipts } = (await lab.ok(machine, ['receipts'])) as unknown as { receipts: Receipt[] }
    const { result } = receipts.at(-1)!
    expect(result).toMatchObject({ blocks, beyondImage, log: { movedFrom: log.movedFrom } })
    const { dirty, zero, local, staged, copied, fetched } = blocks
    expect(zero + local + staged + copied + fetched).toBe(dirty)
  }

  /** The next release: blocks of new content, two that change places, one that is copied, one that becomes zeros. */
  async function publish(changed: Iterable<number>, ...args: string[]): Promise<void> {
    await lab.stop('master')
    model = await readFile(lab.path('model.img'))
    for (const index of changed) model.set(random.bytes(BLOCK), index * BLOCK)
    const moved = Buffer.from(model.subarray(10 * BLOCK, 11 * BLOCK))
    model.copy(model, 10 * BLOCK, 11 * BLOCK, 12 * BLOCK)
    moved.copy(model, 11 * BLOCK)
    model.copy(model, 20 * BLOCK, 30 * BLOCK, 31 * BLOCK)
    model.fill(0, 40 * BLOCK, 41 * BLOCK)
    await writeFile(lab.path('model.img'), model)
    // Half of the image changes.
    const seed = ['seed', lab.path('model.img'), '--force', ...args]
    await (args.includes('--once') ? lab.ok('master', seed) : lab.serve('master', seed))
  }

  async function staging(machine: string): Promise<StagingStatus | undefined> {
    return (await callControl(lab.path(machine), 'live', isLive)).staging
  }

  it('is restored without any network, whatever the session has written, and keeps only what sessions dirty', async () => {
    const monitors = await Promise.all(MACHINES.map(monitor))
    await write('pc1', [1000, 1001, 2003])
    const running = await Promise.all(MACHINES.map((machine) => lab.serve(machine, ['up'])))
    for (const up of running) await up.event('serving')
    const changed = [3, 4, 5, 50, 90, 91, 92, 93, BLOCKS - 1]
    await publish(changed)
    for (const up of running) expect(await up.event('staged')).toMatchObject({ release: 2, left: 0, state: 'done' })
    // New content, and the two blocks that change places; what is copied or zeroed has to be staged nowhere.
    expect(await staging('pc2')).toMatchObject({ wanted: changed.length + 2, staged: changed.length + 2 })
    expect((await lab.run('pc2', ['status', '--quiet'])).result).toMatchObject({
      staging: { release: 2, state: 'done' },
    })
    // The session goes on: in a changed block, in one that was staged, and in others.
    await write('pc1', [3 * 16, 4 * 16 + 7, 70 * 16, 71 * 16 + 15, 30 * 16])
    // The blocks of granules 1000, 1001 and 2003, and 70, 71 and 30, have to come, too.
    const all = changed.length + 2 + 5
    await vi.waitFor(async () => expect(await staging('pc1')).toMatchObject({ staged: all, state: 'done' }), {
      timeout: WAIT_MS,
      interval: 200,
    })
    await lab.stop('master')
    for (const process of [...running, ...monitors]) expect((await process.stop()).code).toBe(0)

    for (const machine of MACHINES) {
      const receipt = await restore(machine)
      // On pc1 the block that is copied has been written over, so that it comes from the stage as well.
      expect(receipt).toMatchObject({
        verified: true,
        release: 2,
        log: { source: 'nbd', state: 'dirty', movedFrom: 1 },
      })
      expect(receipt.blocks).toMatchObject({ fetched: 0, zero: 1, staged: machine === 'pc1' ? all + 1 : all - 5 })
      expect(receipt.bytes.received).toBe(0)
      expect(receipt.events).not.toContain('listening')
      expect((await readFile(lab.path(`${machine}.img`))).equals(model)).toBe(true)
      // Blocks 3, 4, 30, 62, 70, 71 and 125 of pc1.
      const { stage } = (await lab.run(machine, ['status', '--quiet'])).result!
      expect(stage).toEqual(machine === 'pc1' ? { blocks: 7, bytes: 7 * BLOCK, dirtied: 7 } : undefined)
      await expectSigned(machine, receipt)
      // The log is of the new release from now on.
      expect(await restore(machine)).toMatchObject({ blocks: { dirty: 0 }, log: { state: 'clean' } })
    }
  })
  it('is skipped by a machine that was off for five: it goes straight to the newest', async () => {
    for (const changed of [[60], [61, 62], [62, 63], [64]]) await publish(changed, '--once')
    await publish([60, 65])
    const session = await monitor('pc1')
    await write('pc1', [100 * 16 + 3, 65 * 16])
    await session.stop()
    const receipt = await restore('pc1')
    expect(receipt).toMatchObject({ verified: true, release: 7, log: { state: 'dirty', movedFrom: 2 } })
    // 60 to 65; 10 and 11, which have changed places an odd number of times; and 100, unless it was put right on the way.
    expect([8, 9]).toContain(receipt.blocks.dirty)
    expect(receipt.blocks.staged).toBe(0)
    await expectSigned('pc1', receipt)
    expect((await readFile(lab.path('pc1.img'))).equals(model)).toBe(true)
  })

  it('goes on when the switch was killed anywhere, forth and back, and never has to read the whole disk', async () => {
    // pc2 has the seventh, and goes on giving it to others.
    const behind = await lab.serve('pc2', ['up'])
    await behind.event('staged')
    await behind.stop()
    expect(await restore('pc2')).toMatchObject({ release: 7, blocks: { fetched: 0 } })
    const before = model
    await publish(
      Array.from({ length: BLOCKS / 2 }, (_, i) => 2 * i),
      ...SLOW,
    )
    await (await lab.serve('pc2', ['up', ...SLOW])).event('staged')
    const images = { 7: before, 8: model }
    // A machine on which nothing is to be restored asks nobody for news.
    const session = await monitor('pc1')
    await write('pc1', [0])
    await session.stop()
    expect(await restore('pc1')).toMatchObject({ release: 8, log: { movedFrom: 7 } })
    let midway = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const release = random.below(2) === 0 ? 7 : 8
      const running = await lab.start('pc1', ['restore', '--release', String(release)])
      const moment = MOMENTS[random.below(MOMENTS.length)]!
      const reached = running.when((event) => moment === 'start' || event.event === moment)
      await Promise.race([reached, running.exited])
      const delay = new Promise((resolve) => setTimeout(resolve, random.below(LATEST_AFTER_MS)))
      await Promise.race([delay, running.exited])
      const { code, signal, stderr } = await running.stop('SIGKILL')
      expect(signal === 'SIGKILL' || code === 0, stderr).toBe(true)
      const disk = await readFile(lab.path('pc1.img'))
      if (Object.values(images).every((image) => !image.equals(disk))) midway++
    }
    console.log(`${midway} of ${KILLS} kills left a disk between two releases`)
    expect(midway).toBeGreaterThan(0)
    for (const release of [7, 8] as const) {
      const receipt = await restore('pc1', '--release', String(release))
      expect(receipt.log.state).not.toBe('unknown')
      expect(receipt).toMatchObject({ verified: true, release })
      expect((await readFile(lab.path('pc1.img'))).equals(images[release])).toBe(true)
    }
  })
})
