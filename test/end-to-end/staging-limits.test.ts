import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { isLive } from '../../node/agent/answer/replies.ts'
import type { StagingStatus } from '../../node/agent/machine/events.ts'
import { callControl } from '../../node/control/control-client.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 64
const CHANGED = 40
const FITTING = 7
const WAIT_MS = 60_000

describe('staging', { timeout: 4 * WAIT_MS }, () => {
  const random = new Random(testSeed('staging limits'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'pc1', image, await lab.invite('master'))
    await lab.ok('pc1', ['restore'])
    await lab.stop('master')
    await dirty(lab.path('model.img'), Array(CHANGED).keys(), random)
    // More than half of the image changes.
    await lab.serve('master', ['seed', lab.path('model.img'), '--force'])
  })
  afterAll(() => lab.close())

  async function staging(): Promise<StagingStatus | undefined> {
    return (await callControl(lab.path('pc1'), 'live', isLive)).staging
  }

  it('keeps to a rate, and goes on where it was killed', async () => {
    const slow = await lab.serve('pc1', ['up', '--stage-rate', '4Mbit', '--in-use-check', 'none'])
    await vi.waitFor(async () => expect((await staging())?.staged).toBeGreaterThan(CHANGED / 4), {
      timeout: WAIT_MS,
      interval: 50,
    })
    expect(await staging()).toMatchObject({ release: 2, wanted: CHANGED, state: 'fetching' })
    await slow.stop('SIGKILL')
    const again = await lab.serve('pc1', ['up', '--stage-rate', 'none'])
    const { staged, received } = (await again.event('staged')) as unknown as StagingStatus
    expect(staged).toBe(CHANGED)
    // The hash tree was there, and what had been made durable.
    expect(received).toBeLessThanOrEqual((CHANGED - 4) * BLOCK)
    await again.stop()
  })

  it('keeps to its room: what does not fit is fetched by the restore', async () => {
    const up = await lab.serve('pc1', ['up', '--stage-space', `${(FITTING * BLOCK) / 1024}K`])
    expect(await up.event('staged')).toMatchObject({ wanted: CHANGED, staged: FITTING, left: CHANGED - FITTING })
    await up.stop()
    const none = await lab.serve('pc1', ['up', '--stage-space', '0'])
    await none.event('serving')
    expect(await staging()).toBeUndefined()
    await none.stop()
    expect(await lab.ok('pc1', ['restore'])).toMatchObject({
      verified: true,
      release: 2,
      blocks: { dirty: CHANGED, staged: FITTING, fetched: CHANGED - FITTING },
    })
    expect(await readFile(lab.path('pc1.img'))).toEqual(await readFile(lab.path('model.img')))
  })
})
