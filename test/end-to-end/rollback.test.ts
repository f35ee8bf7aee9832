import { copyFile, readFile, rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type Releases, releases } from '../../node/agent/release/releases.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 64
const CHANGED = [3, 20, 21]
const WAIT_MS = 60_000

describe('releases, and going back to one', { timeout: 4 * WAIT_MS }, () => {
  const random = new Random(testSeed('rollback'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    await copyFile(lab.path('model.img'), lab.path('first.img'))
    const token = await lab.invite('master')
    for (const machine of ['pc1', 'pc2']) await joinMachine(lab, machine, image, token)
    await lab.ok('pc1', ['restore'])
    await lab.stop('master')
    await dirty(lab.path('model.img'), CHANGED, random)
    await lab.serve('master', ['seed', lab.path('model.img'), '--label', 'with a fault'])
    await (await lab.serve('pc1', ['up'])).event('staged')
  })
  afterAll(() => lab.close())

  async function list(machine: string): Promise<Releases['releases']> {
    return (await releases(lab.path(machine))).releases
  }

  const rollback = (...args: string[]): Promise<MeshEvent> => lab.ok('master', ['rollback', ...args])

  it('are listed with what each changed, as far as the hash trees are there', async () => {
    const difference = { blocks: 3, bytes: 3 * BLOCK, newBlocks: 3, newBytes: 3 * BLOCK }
    const [first, second] = await list('master')
    expect(first).toMatchObject({ release: 1, difference: null, onDisk: false, size: BLOCKS * BLOCK })
    expect(second).toMatchObject({ release: 2, difference, onDisk: true, label: 'with a fault' })
    const [onDisk, staged] = await list('pc1')
    expect(onDisk).toMatchObject({ release: 1, onDisk: true })
    expect(staged).toMatchObject({ release: 2, difference, onDisk: false, staged: { staged: 3, wanted: 3 } })
    // A machine that knows of the release by name only.
    expect((await list('pc2')).at(-1)).toMatchObject({ difference: null, onDisk: false })
    const { stdout } = await lab.run('pc1', ['releases'])
    expect(stdout).toContain('with a fault')
  })

  it('publish an earlier content again, which machines that still have it give the others', async () => {
    const [first] = await list('master')
    expect(await rollback('1')).toMatchObject({
      release: 3,
      content: 1,
      root: first!.root,
      blocks: { total: BLOCKS, notHere: CHANGED.length, nowhere: 0 },
    })
    await vi.waitFor(
      async () => expect((await list('pc1')).at(-1)).toMatchObject({ release: 3, label: 'as release 1' }),
      {
        timeout: WAIT_MS,
        interval: 200,
      },
    )
    // Nothing has to be staged for what is on the disk already; it is offered as the new release.
    await vi.waitFor(
      async () => expect((await list('pc1')).at(-1)?.staged).toMatchObject({ wanted: 0, state: 'done' }),
      {
        timeout: WAIT_MS,
        interval: 200,
      },
    )
    expect(await lab.ok('pc2', ['restore'])).toMatchObject({ verified: true, root: first!.root })
    expect(await readFile(lab.path('pc2.img'))).toEqual(await readFile(lab.path('first.img')))
    // So does the master, which serves what it has in the meantime.
    await lab.stop('master')
    expect(await lab.ok('master', ['restore'])).toMatchObject({
      verified: true,
      release: 3,
      blocks: { dirty: CHANGED.length },
    })
    expect(await readFile(lab.path('model.img'))).toEqual(await readFile(lab.path('first.img')))
    await lab.serve('master', ['seed', lab.path('model.img')])
    expect(await list('master')).toHaveLength(3)
  })

  it('are refused if nothing would change, or blocks are nowhere to be had, unless that is wanted', async () => {
    const same = await lab.run('master', ['rollback', '1'])
    expect(same.result).toMatchObject({ code: 'USAGE' })
    await lab.stop('pc1')
    const refused = await lab.run('master', ['rollback', '2'])
    expect(refused).toMatchObject({ code: 7, result: { code: 'BLOCKS_UNAVAILABLE' } })
    expect(refused.stderr).toMatch(/^mesh: 3 of 64 blocks of release 2 .*--force/)
    expect(await rollback('2', '--force', '--label', 'anyway')).toMatchObject({ release: 4, blocks: { nowhere: 3 } })
    expect((await lab.run('master', ['rollback', '9'])).result).toMatchObject({ code: 'IMAGE_UNKNOWN' })
    await lab.serve('pc1', ['up'])
    expect((await lab.run('pc1', ['rollback', '1'])).result).toMatchObject({ code: 'STATE_NOT_MASTER' })
  })

  it('need hash trees, which a master that has none fetches from machines, or says whom to start', async () => {
    const forget = async (): Promise<void> => {
      await lab.stop('master')
      await rm(lab.path('master', 'trees'), { recursive: true })
      await lab.serve('master', ['up'])
    }
    await forget()
    const of = { release: 5, content: 1, blocks: { total: BLOCKS, notHere: BLOCKS, nowhere: 0 } }
    await vi.waitFor(async () => expect((await rollback('1', '--dry-run')).blocks).toEqual(of.blocks), {
      timeout: WAIT_MS,
      interval: 500,
    })
    expect(await rollback('1')).toMatchObject(of)
    await lab.stop('pc1')
    await forget()
    const refused = await lab.run('master', ['rollback', '2'])
    expect(refused).toMatchObject({ code: 7, result: { code: 'BLOCKS_UNAVAILABLE' } })
    expect(refused.stderr).toMatch(
      /the hash tree of release 2 of model is neither on this master .*; start a machine whose disk holds release 2/,
    )
  })
})
