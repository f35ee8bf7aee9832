import { cp, readFile, rm, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 48
const WAIT_MS = 60_000

describe('a lab that has lost its master', { timeout: 3 * WAIT_MS }, () => {
  const random = new Random(testSeed('lost master'))
  const copy = (): string => lab.path('copy')
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    const model = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'pc1', model, await lab.invite('master'))
    await lab.ok('pc1', ['restore'])
    await lab.stop('master')
    await cp(lab.path('master'), copy(), { recursive: true })
    for (const part of ['trees', 'copies']) await rm(lab.path('copy', part), { recursive: true, force: true })
    // The copy is older than what the lab has in the end: another release, and another machine.
    const running = await lab.serve('pc1', ['up'])
    await dirty(lab.path('model.img'), [1, 2, 30], random)
    await lab.serve('master', ['seed', lab.path('model.img')])
    await joinMachine(lab, 'pc2', model, await lab.invite('master'))
    expect(await running.event('staged')).toMatchObject({ release: 2 })
    await lab.ok('pc2', ['restore'])
    await lab.stop('pc1')
    await lab.ok('pc1', ['restore'])
    await lab.stop('master')
  })
  afterAll(() => lab.close())

  it('has one again from an older copy of the state, and from the machines the model disk, too', async () => {
    const model = await readFile(lab.path('model.img'))
    await rm(lab.path('master'), { recursive: true })
    await writeFile(lab.path('model.img'), Buffer.alloc(model.byteLength))
    await cp(copy(), lab.path('master'), { recursive: true })
    const running = await Promise.all(['pc1', 'pc2'].map((machine) => lab.serve(machine, ['up'])))

    await lab.serve('master', ['up'])
    const known = async (): Promise<unknown> => (await lab.ok('master', ['releases'])).releases
    await vi.waitFor(async () => expect(await known()).toHaveLength(2), { timeout: WAIT_MS, interval: 200 })
    expect((await lab.ok('master', ['status'])).members).toBe(3)
    await lab.stop('master')
    expect(await lab.ok('master', ['restore'])).toMatchObject({ release: 2, verified: true })
    expect((await readFile(lab.path('model.img'))).equals(model)).toBe(true)

    await dirty(lab.path('model.img'), [5], random)
    await lab.serve('master', ['seed', lab.path('model.img')])
    for (const up of running) expect(await up.event('staged')).toMatchObject({ release: 3 })
    for (const machine of ['pc1', 'pc2']) {
      await lab.stop(machine)
      expect(await lab.ok(machine, ['restore'])).toMatchObject({ release: 3, verified: true })
      expect((await readFile(lab.path(`${machine}.img`))).equals(await readFile(lab.path('model.img')))).toBe(true)
    }
  })
})
