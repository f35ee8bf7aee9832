import { copyFile, cp, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 8
const WAIT_MS = 120_000

describe('a master that was stolen', { timeout: 3 * WAIT_MS }, () => {
  const random = new Random(testSeed('site takeover'))
  let lab: Lab
  let image: Buffer

  const key = (): string[] => ['--key', lab.path('root.key'), '--passphrase-file', lab.path('passphrase')]
  const fails = async (machine: string, args: readonly string[], code: ErrorCode, exit: number): Promise<void> => {
    const outcome = await lab.run(machine, args)
    expect([outcome.result?.code, outcome.code], outcome.stderr).toEqual([code, exit])
  }
  const masters = async (machine: string): Promise<unknown> =>
    ((await lab.ok(machine, ['site', 'show'])).masters as MeshEvent[]).map(({ name }) => name)
  const releases = async (machine: string): Promise<unknown> =>
    ((await lab.ok(machine, ['releases'])).releases as MeshEvent[]).map(({ release }) => release).toSorted()

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    for (const machine of ['pc1', 'pc2', 'pc3']) {
      await joinMachine(lab, machine, image, await lab.invite('master'))
      await lab.ok(machine, ['restore'])
    }
    await writeFile(lab.path('passphrase'), 'three sticks in three drawers\n')
    for (const machine of ['pc1', 'pc2', 'pc3']) await lab.serve(machine, ['up'])
    // The machines know where they are: there is no multicast DNS here.
    const near = async (): Promise<unknown[]> =>
      ((await lab.ok('pc3', ['peers'])).peers as MeshEvent[]).filter(({ connected }) => connected === true)
    while ((await near()).length < 3) await sleep(100)
    // One machine is off from here on: it misses two roots.
    await lab.stop('pc3')
    const made = ['--new-passphrase-file', lab.path('passphrase')]
    await lab.ok('master', ['site', 'rotate', 'root', lab.path('root.key'), ...made])
    const root = async (machine: string): Promise<unknown> =>
      ((await lab.ok(machine, ['site', 'show'])).roles as MeshEvent[])[0]?.version
    for (const machine of ['pc1', 'pc2']) while ((await root(machine)) !== 2) await sleep(100)
    for (const machine of ['master', 'pc1', 'pc2']) await lab.stop(machine)
    // What the thief has, and what he publishes with it.
    await cp(lab.path('master'), lab.path('thief'), { recursive: true })
    await copyFile(lab.path('model.img'), lab.path('thief.img'))
    await dirty(lab.path('thief.img'), [0, 1, 2], random)
    const forced = ['--once', '--force', '--accept-new-disk', '--image', 'model']
    expect(await lab.ok('thief', ['seed', lab.path('thief.img'), ...forced])).toMatchObject({ release: 2 })
  }, 3 * WAIT_MS)
  afterAll(() => lab.close())

  it('is replaced by a machine of the site, with the key of the root and not without it', async () => {
    await fails('pc1', ['site', 'takeover'], 'SITE_KEY_MISSING', EXIT.trust)
    await fails('master', ['site', 'takeover', ...key()], 'USAGE', EXIT.usage)
    expect(await lab.ok('pc1', ['site', 'takeover', ...key(), '--dry-run'])).toMatchObject({ dryRun: true })
    expect(await readdir(lab.path('pc1'))).not.toContain('keys')
    expect(await masters('pc1')).toEqual(['master'])
    await fails('pc1', ['invite'], 'STATE_NOT_MASTER', EXIT.state)

    const taken = await lab.ok('pc1', ['site', 'takeover', ...key()])
    expect(taken).toMatchObject({ name: 'pc1', root: 3, removed: ['master'], newTargets: true })
    for (const name of await readdir(lab.path('pc1', 'keys')))
      expect((await stat(lab.path('pc1', 'keys', name))).mode & 0o777).toBe(0o600)
    // One that was cut off at its last step is run again, and needs no key for that.
    const config = JSON.parse(await readFile(lab.path('pc1', 'machine.json'), 'utf8')) as object
    await writeFile(lab.path('pc1', 'machine.json'), JSON.stringify({ ...config, role: 'machine' }))
    await fails('pc1', ['invite'], 'STATE_NOT_MASTER', EXIT.state)
    expect(await lab.ok('pc1', ['site', 'takeover'])).toMatchObject({ name: 'pc1', root: 3, removed: [] })
  })

  it('is followed by no machine: not by those that run, nor by one that was off for two roots', async () => {
    await lab.serve('pc1', ['up'])
    await lab.serve('pc2', ['up'])
    while (!(((await masters('pc2')) as string[])[0] === 'pc1')) await sleep(100)
    await lab.serve('thief', ['up'])
    await sleep(3000)
    expect([await masters('pc2'), await releases('pc2')]).toEqual([['pc1'], [1]])
    expect(await lab.ok('pc2', ['status'])).toMatchObject({ members: 3 })
    await lab.stop('thief')
    const pc3 = await lab.serve('pc3', ['up'])
    while (!(((await masters('pc3')) as string[])[0] === 'pc1')) await sleep(100)
    await pc3.stop()
    // The honest one, should it come back, hears what has become of it.
    const old = await (await lab.start('master', ['up'])).exited
    expect([old.result?.code, old.code], old.stderr).toEqual(['MEMBER_REMOVED', EXIT.removed])
  })

  it('has a successor that enrols, publishes, and gives keys away again', async () => {
    await joinMachine(lab, 'pc4', image, await lab.invite('pc1'))
    await mkdir(lab.path('sticks'))
    const made = ['--new-passphrase-file', lab.path('passphrase')]
    await lab.ok('pc1', ['site', 'rotate', 'root', lab.path('sticks', 'next.key'), ...key(), ...made])
    await lab.stop('pc1')
    await dirty(lab.path('pc1.img'), [4], random)
    const seed = ['seed', lab.path('pc1.img'), '--image', 'model', '--force']
    await lab.serve('pc1', seed)
    expect(await releases('pc1')).toEqual([1, 2])
    await lab.stop('pc2')
    for (const machine of ['pc2', 'pc3']) {
      const up = await lab.serve(machine, ['up'])
      await up.when((event) => event.event === 'staged' && event.release === 2)
      await up.stop()
    }
    for (const machine of ['pc2', 'pc3', 'pc4']) {
      expect(await lab.ok(machine, ['restore'])).toMatchObject({ release: 2, verified: true })
      expect((await readFile(lab.path(`${machine}.img`))).equals(await readFile(lab.path('pc1.img')))).toBe(true)
    }
  })
})
