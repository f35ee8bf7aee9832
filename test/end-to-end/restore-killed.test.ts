import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const KILLS = 50
const BLOCKS = 640
/** Kills come some time after one of these: before anything is told, and at the first progress of each phase. */
const MOMENTS = ['start', 'listening', 'tree', 'scan', 'restore', 'restore', 'restore'] as const
const LATEST_AFTER_MS = 400
/** From the first word of the restore itself to its end takes about this long. */
const LATEST_IN_RESTORE_MS = 1200

describe('mesh restore', () => {
  const random = new Random(testSeed('restore killed'))
  let lab: Lab
  let image: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'm1', image, await lab.invite('master'))
  })
  afterAll(() => lab.close())

  const disk = (): string => lab.path('m1.img')

  /** How many blocks of the disk are right. */
  async function rightBlocks(): Promise<number> {
    const bytes = await readFile(disk())
    let right = 0
    for (let at = 0; at < bytes.byteLength; at += BLOCK) {
      if (bytes.subarray(at, at + BLOCK).equals(image.subarray(at, at + BLOCK))) right++
    }
    return right
  }

  /** Starts a restore, and kills it as soon as something of the disk is right; it may have ended by then. */
  async function killMidway(): Promise<void> {
    const running = await lab.start('m1', ['restore'])
    let ended = false
    void running.exited.then(() => {
      ended = true
    })
    while (!ended && (await rightBlocks()) === 0);
    await running.stop('SIGKILL')
  }

  /** Starts a restore and kills it at a random point; it may have ended by itself before. */
  async function killOnce(): Promise<void> {
    const moment = MOMENTS[random.below(MOMENTS.length)]!
    const running = await lab.start('m1', ['restore'])
    const reached = running.when((event) => moment === 'start' || event.event === moment || event.phase === moment)
    await Promise.race([reached, running.exited])
    const latest = moment === 'restore' ? LATEST_IN_RESTORE_MS : LATEST_AFTER_MS
    const delay = new Promise((resolve) => setTimeout(resolve, random.below(latest)))
    await Promise.race([delay, running.exited])
    const { code, signal, stderr } = await running.stop('SIGKILL')
    expect(signal === 'SIGKILL' || code === 0, stderr).toBe(true)
  }

  it(`continues after each of ${KILLS} SIGKILLs at random points`, async () => {
    let right = await rightBlocks()
    let midway = 0
    for (let kill = 0; kill < KILLS; kill++) {
      if (right === BLOCKS) {
        await dirty(disk(), Array(BLOCKS).keys(), random)
        right = 0
      }
      const before = right
      await killOnce()
      right = await rightBlocks()
      // What was right stays right.
      expect(right).toBeGreaterThanOrEqual(before)
      if (right > 0 && right < BLOCKS) midway++
    }
    console.log(`${midway} of ${KILLS} kills left a disk that was partly restored`)
    expect(midway).toBeGreaterThan(0)

    const receipt = (await lab.ok('m1', ['restore'])) as unknown as RestoreResult
    expect(receipt.verified).toBe(true)
    expect(receipt.blocks.fetched + receipt.blocks.staged).toBe(BLOCKS - right)
    expect((await readFile(disk())).equals(image)).toBe(true)
  })

  it('offers to others only what a killed restore left right', async () => {
    let right = BLOCKS
    for (let tries = 0; tries < 30 && (right === 0 || right === BLOCKS); tries++) {
      await dirty(disk(), Array(BLOCKS).keys(), random)
      await killMidway()
      right = await rightBlocks()
    }
    expect(right).toBeGreaterThan(0)
    expect(right).toBeLessThan(BLOCKS)
    const up = await lab.serve('m1', ['up'])
    expect(await up.event('serving')).toMatchObject({ blocks: right })
    const { blocks } = (await lab.ok('m1', ['status'])) as unknown as { blocks: { held: number; changed: number } }
    expect(blocks).toMatchObject({ held: right, changed: BLOCKS - right })
    await up.stop()
  })
})
