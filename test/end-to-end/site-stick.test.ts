import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 8
const WAIT_MS = 120_000

describe('metadata on a stick', { timeout: 2 * WAIT_MS }, () => {
  const random = new Random(testSeed('site stick'))
  let lab: Lab
  const stick = (): string => lab.path('stick')
  const fails = async (machine: string, args: readonly string[], code: ErrorCode, exit: number): Promise<void> => {
    const outcome = await lab.run(machine, args)
    expect([outcome.result?.code, outcome.code], outcome.stderr).toEqual([code, exit])
  }
  const versions = async (machine: string): Promise<unknown> =>
    ((await lab.ok(machine, ['site', 'show'])).roles as MeshEvent[]).map(({ version }) => version)

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    for (const machine of ['pc1', 'pc2']) await joinMachine(lab, machine, image, await lab.invite('master'))
    await lab.ok('master', ['site', 'export', stick()])
    await cp(stick(), lab.path('old-stick'), { recursive: true })
    // The machines hear nothing of what follows.
    await lab.stop('master')
    await dirty(lab.path('model.img'), [1], random)
    await lab.ok('master', ['seed', lab.path('model.img'), '--once'])
    for (const role of ['root', 'timestamp', 'root']) await lab.ok('master', ['site', 'rotate', role])
  }, WAIT_MS)
  afterAll(() => lab.close())

  it('is carried to machines that hear of nobody, whether mesh runs there or not', async () => {
    expect(await lab.ok('master', ['site', 'export', stick(), '--dry-run'])).toMatchObject({ dryRun: true })
    // It joined last, and has all of that.
    expect(await lab.ok('pc2', ['site', 'import', stick()])).toMatchObject({ changed: false })
    expect(await lab.ok('master', ['site', 'export', stick()])).toMatchObject({ versions: { root: 4 } })
    expect(await lab.ok('pc1', ['site', 'import', stick(), '--dry-run'])).toMatchObject({ changed: true, dryRun: true })
    expect(await versions('pc1')).not.toEqual(await versions('master'))
    const releases = [{ image: 'model', release: 2 }]
    expect(await lab.ok('pc1', ['site', 'import', stick()])).toMatchObject({ changed: true, releases })
    await lab.serve('pc2', ['up'])
    expect(await lab.ok('pc2', ['site', 'import', stick()])).toMatchObject({ changed: true, releases })
    for (const machine of ['pc1', 'pc2']) expect(await versions(machine)).toEqual(await versions('master'))
    expect(await lab.ok('pc2', ['site', 'import', stick()])).toMatchObject({ changed: false })
    expect(await readdir(lab.path('pc1'))).not.toContain('trust.tried')
  })

  it('is checked as that of a peer', async () => {
    const before = await versions('pc1')
    // The key of its timestamp has been replaced since.
    await fails('pc1', ['site', 'import', lab.path('old-stick')], 'METADATA_INVALID', EXIT.trust)
    await cp(stick(), lab.path('mid-stick'), { recursive: true })
    await fails('pc1', ['site', 'import', lab.path('nothing')], 'USAGE', EXIT.usage)
    const targets = (await readdir(stick())).find((name) => name.endsWith('.targets.json'))!
    await joinAnother()
    await lab.ok('master', ['site', 'export', stick()])
    const list = (await readdir(stick()))
      .filter((name) => name.endsWith('.members.json'))
      .toSorted()
      .at(-1)!
    const text = await readFile(join(stick(), list), 'utf8')
    await writeFile(join(stick(), list), text.replace(/[0-9a-f]{64}/, '0'.repeat(64)))
    await fails('pc1', ['site', 'import', stick()], 'METADATA_INVALID', EXIT.trust)
    await rm(join(stick(), targets))
    await fails('pc1', ['site', 'import', stick()], 'METADATA_INVALID', EXIT.trust)
    expect(await versions('pc1')).toEqual(before)
    await lab.ok('other', ['seed', lab.path('model.img'), '--once', '--site', 'other'])
    await fails('other', ['site', 'export', stick()], 'USAGE', EXIT.usage)
    await lab.ok('other', ['site', 'export', lab.path('other-stick')])
    const foreign = await lab.run('pc1', ['site', 'import', lab.path('other-stick')])
    expect(foreign.code).toBe(EXIT.trust)
    expect(await versions('pc1')).toEqual(before)
    // What is missing or changed is written again.
    await lab.ok('master', ['site', 'export', stick()])
    expect(await lab.ok('pc1', ['site', 'import', stick()])).toMatchObject({ changed: true, members: 3 })
    await fails('pc1', ['site', 'import', lab.path('mid-stick')], 'METADATA_ROLLBACK', EXIT.trust)
  })

  async function joinAnother(): Promise<void> {
    await lab.serve('master', ['up'])
    await lab.ok('master', ['remove', 'pc2'])
    await writeFile(lab.path('pc3.img'), new Uint8Array(BLOCKS * 65536))
    await lab.ok('pc3', ['join', await lab.invite('master'), '--name', 'pc3', '--disk', lab.path('pc3.img')])
    await lab.stop('master')
  }
})
