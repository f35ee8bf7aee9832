import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 64
const WAIT_MS = 60_000
/** How long a restore waits for machines, in seconds. */
const PATIENCE = ['--wait', '3s']

describe('a newer release that nobody has', { timeout: 3 * WAIT_MS }, () => {
  const random = new Random(testSeed('unavailable release'))
  let lab: Lab
  let first: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    first = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master')
    for (const machine of ['pc1', 'pc2']) {
      await joinMachine(lab, machine, first, token)
      await lab.ok(machine, ['restore'])
    }
    // They hear of release 2, and of nothing of what is in it.
    const running = await Promise.all(['pc1', 'pc2'].map((machine) => lab.serve(machine, ['up', '--stage-space', '0'])))
    await lab.stop('master')
    const second = Buffer.from(first)
    for (const index of [3, 4, 5, 40]) second.set(random.bytes(BLOCK), index * BLOCK)
    await writeFile(lab.path('model.img'), second)
    await lab.serve('master', ['seed', lab.path('model.img')])
    for (const machine of ['pc1', 'pc2']) {
      const known = async (): Promise<unknown> => (await lab.ok(machine, ['releases'])).releases
      await vi.waitFor(async () => expect(await known()).toHaveLength(2), { timeout: WAIT_MS, interval: 200 })
    }
    await lab.stop('master')
    for (const process of running) expect((await process.stop()).code).toBe(0)
  })
  afterAll(() => lab.close())

  async function restored(machine: string): Promise<RestoreResult> {
    const { code, stdout, stderr, result, events } = await lab.run(machine, ['restore', ...PATIENCE])
    expect(code, `${stdout}\n${stderr}`).toBe(0)
    const warnings = events.filter(({ event }) => event === 'warning').map(({ text }) => String(text))
    expect(warnings.join('\n')).toContain('release 2 cannot be had now')
    expect((await readFile(lab.path(`${machine}.img`))).equals(first)).toBe(true)
    return result as unknown as RestoreResult
  }

  it('leaves a machine that is alone at the release on its disk', async () => {
    expect(await restored('pc1')).toMatchObject({ release: 1, verified: true, blocks: { dirty: 0 } })
  })

  it('does not keep a machine from being restored from the others', async () => {
    await dirty(lab.path('pc1.img'), [3, 7, 8], random)
    await lab.serve('pc2', ['up', '--stage-space', '0'])
    expect(await restored('pc1')).toMatchObject({ release: 1, verified: true, blocks: { dirty: 3, fetched: 3 } })
    await lab.stop('pc2')
  })

  it('is turned to as soon as somebody has it', async () => {
    await lab.serve('master', ['up'])
    const { release, verified } = (await lab.ok('pc1', ['restore'])) as unknown as RestoreResult
    expect({ release, verified }).toEqual({ release: 2, verified: true })
    expect((await readFile(lab.path('pc1.img'))).equals(await readFile(lab.path('model.img')))).toBe(true)
  })
})
