import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 8
const ROLES = ['root', 'targets', 'snapshot', 'timestamp', 'members'] as const
const WAIT_MS = 120_000

interface RoleSeen {
  role: string
  version: number
  expires: string
  threshold: number
  keys: { id: string; here: boolean }[]
}

describe('the keys of a site', { timeout: 3 * WAIT_MS }, () => {
  const random = new Random(testSeed('site keys'))
  let lab: Lab
  let image: Buffer

  const show = (machine: string): Promise<MeshEvent> => lab.ok(machine, ['site', 'show'])
  const role = async (name: (typeof ROLES)[number], machine = 'master'): Promise<RoleSeen> =>
    ((await show(machine)).roles as RoleSeen[]).find((one) => one.role === name)!
  const stick = (name: string): string => lab.path('sticks', name)
  const secret = (name: string): string => lab.path('secrets', name)
  const fails = async (args: readonly string[], code: ErrorCode, exit: number): Promise<void> => {
    const outcome = await lab.run('master', args)
    expect([outcome.result?.code, outcome.code], outcome.stderr).toEqual([code, exit])
  }
  const follows = async (machine: string): Promise<void> => {
    const root = (await role('root')).version
    while ((await role('root', machine)).version !== root) await sleep(100)
  }
  /** A machine that was off hears what has been signed since, and has that release on its disk then. */
  const comesBack = async (machine: string, release: number): Promise<void> => {
    const up = await lab.serve(machine, ['up'])
    await up.when((event) => event.event === 'staged' && event.release === release)
    await up.stop()
    expect(await lab.ok(machine, ['restore'])).toMatchObject({ release, verified: true })
  }
  /** `--key` of these sticks, with their passphrases. */
  const by = (...names: string[]): string[] =>
    names.flatMap((name) => ['--key', stick(name), '--passphrase-file', secret(name)])

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    for (const machine of ['pc1', 'pc2']) {
      await joinMachine(lab, machine, image, await lab.invite('master'))
      await lab.ok(machine, ['restore'])
    }
    for (const folder of ['sticks', 'secrets']) await mkdir(lab.path(folder))
    for (const name of ['a', 'b', 'c', 'd', 's', 't'])
      await writeFile(secret(name), `the passphrase of stick ${name} is long\n`)
  }, WAIT_MS)
  afterAll(() => lab.close())

  it('are shown on every machine, whatever runs there, and which of them are here', async () => {
    const running = await show('master')
    expect(running).toMatchObject({ event: 'site', site: 'lab', role: 'master', members: 3, unused: [], advice: [] })
    const own = await show('pc1')
    expect(own).toMatchObject({ siteId: running.siteId, name: 'pc1', masters: running.masters })
    for (const [machine, here] of [
      ['master', true],
      ['pc1', false],
    ] as const) {
      const { roles } = await show(machine)
      const id = expect.stringMatching(/^[0-9a-f]{64}$/)
      expect(roles).toMatchObject(
        ROLES.map((one) => ({ role: one, threshold: 1, state: 'valid', keys: [{ here, id }] })),
      )
    }
    // A key that nothing names.
    await writeFile(lab.path('master', 'keys', 'old.pem'), OLD)
    expect((await show('master')).unused).toHaveLength(1)
  })

  it('are replaced while machines run, and while one is off, which follows later', async () => {
    await lab.serve('pc1', ['up'])
    const before = new Map<string, string>()
    for (const one of ROLES) before.set(one, (await role(one)).keys[0]!.id)
    expect(await lab.ok('master', ['site', 'rotate', 'root', '--dry-run'])).toMatchObject({ dryRun: true, root: 1 })
    expect((await role('root')).keys[0]!.id).toBe(before.get('root'))
    for (const one of ROLES) {
      expect(await lab.ok('master', ['site', 'rotate', one])).toMatchObject({ role: one, threshold: 1 })
      await follows('pc1')
    }
    expect((await show('master')).unused).toEqual([])
    for (const one of ROLES) {
      const { keys } = await role(one)
      expect(keys).toMatchObject([{ here: true }])
      expect(keys[0]!.id).not.toBe(before.get(one))
    }
    expect((await role('root')).version).toBe(5)
    // All of it still works: joining by a token, by an approval of the new timestamp key, and a release.
    await joinMachine(lab, 'pc3', image, await lab.invite('master'))
    await lab.stop('master')
    await dirty(lab.path('model.img'), [1], random)
    await lab.serve('master', ['seed', lab.path('model.img')])
    await comesBack('pc2', 2)
    expect((await role('root', 'pc2')).version).toBe(5)
  })

  it('of the root are on three sticks, two of which sign, and one may be lost', async () => {
    const rotate = ['site', 'rotate', 'root', ...['a', 'b', 'c'].map(stick), '--threshold', '2']
    const passphrases = ['a', 'b', 'c'].flatMap((name) => ['--new-passphrase-file', secret(name)])
    await fails(['site', 'rotate', 'root', stick('a'), '--threshold', '2'], 'USAGE', EXIT.usage)
    await fails(['site', 'rotate', 'timestamp', stick('a')], 'USAGE', EXIT.usage)
    await lab.ok('master', [...rotate, ...passphrases, '--dry-run'])
    expect(await readdir(lab.path('sticks'))).toEqual([])
    expect(await lab.ok('master', [...rotate, ...passphrases])).toMatchObject({ root: 6, threshold: 2 })
    expect((await role('root')).keys.map(({ here }) => here)).toEqual([false, false, false])
    expect((await show('master')).unused).toEqual([])
    await follows('pc1')
    // Day by day nothing is missing.
    await lab.invite('master')

    const next = ['site', 'rotate', 'timestamp']
    await fails(next, 'SITE_KEY_MISSING', EXIT.trust)
    await fails([...next, ...by('a')], 'SITE_KEY_MISSING', EXIT.trust)
    await fails([...next, ...by('a').slice(0, 3), secret('b')], 'PASSPHRASE_WRONG', EXIT.trust)
    const { keys } = await role('timestamp')
    await lab.ok('master', [...next, ...by('a', 'c')])
    expect((await role('timestamp')).keys[0]!.id).not.toBe(keys[0]!.id)

    // The stick c is lost: a and b give the root new keys, and c signs nothing any more.
    await lab.ok('master', [
      'site',
      'rotate',
      'root',
      stick('d'),
      ...by('a', 'b'),
      '--new-passphrase-file',
      secret('d'),
    ])
    await fails([...next, ...by('a', 'c')], 'SITE_KEY_MISSING', EXIT.trust)
    const { expires } = await role('root')
    await sleep(1100)
    await lab.ok('master', ['site', 'renew', 'root', ...by('d')])
    expect((await role('root')).expires > expires).toBe(true)
    await follows('pc1')
    // Back to the master.
    await lab.ok('master', ['site', 'rotate', 'root', ...by('d')])
    expect(await role('root')).toMatchObject({ threshold: 1, keys: [{ here: true }] })
    await follows('pc1')
  })

  it('of releases is on a stick, without which nothing is published', async () => {
    await lab.ok('master', ['site', 'rotate', 'targets', stick('t'), '--new-passphrase-file', secret('t')])
    await lab.stop('master')
    await dirty(lab.path('model.img'), [2], random)
    const seed = ['seed', lab.path('model.img'), '--once']
    await fails(seed, 'SITE_KEY_MISSING', EXIT.trust)
    expect(await lab.ok('master', [...seed, ...by('t')])).toMatchObject({ release: 3, unchanged: false })
    // What is published already needs no key.
    const master = await lab.serve('master', ['seed', lab.path('model.img')])
    expect(master.events.find(({ event }) => event === 'published') ?? {}).not.toMatchObject({ unchanged: false })
    await fails(['rollback', '2'], 'SITE_KEY_MISSING', EXIT.trust)
    expect(await lab.ok('master', ['rollback', '2', ...by('t')])).toMatchObject({ release: 4 })
    await comesBack('pc2', 4)
    // A stick of another site, and no stick at all.
    await lab.ok('other', ['seed', lab.path('model.img'), '--once', '--site', 'other'])
    const foreign = await lab.run('other', ['site', 'renew', 'targets', ...by('t')])
    expect([foreign.result?.code, foreign.code]).toEqual(['USAGE', EXIT.usage])
    expect(String(foreign.result?.message)).toMatch(/of another site, lab/)
    await lab.ok('master', ['site', 'rotate', 'targets', ...by('t')])
    await rm(stick('t'))
  })

  it('of the images of one school are on a stick that signs no others', async () => {
    const passphrases = ['t', 's'].map((name) => ['--new-passphrase-file', secret(name)])
    await lab.ok('master', ['site', 'rotate', 'targets', stick('t'), ...passphrases[0]!])
    const delegate = ['site', 'delegate', 'school-a']
    await fails([...delegate, ...by('t')], 'USAGE', EXIT.usage)
    await fails([...delegate, stick('s'), ...passphrases[1]!], 'SITE_KEY_MISSING', EXIT.trust)
    expect(await readdir(lab.path('sticks'))).not.toContain('s')
    await lab.ok('master', [...delegate, stick('s'), ...passphrases[1]!, ...by('t')])
    await lab.stop('master')
    await writeFile(lab.path('school.img'), random.bytes(4 * 65536))
    const seed = ['seed', lab.path('school.img'), '--once', ...by('s')]
    await fails([...seed, '--image', 'school-b/win'], 'SITE_KEY_MISSING', EXIT.trust)
    const own = [...seed, '--image', 'school-a/win']
    expect(await lab.ok('master', own)).toMatchObject({ image: 'school-a/win', release: 1 })
    await lab.serve('master', ['up'])
    await lab.stop('pc1')
    await lab.serve('pc1', ['up'])
    while (!((await show('pc1')).roles as RoleSeen[]).some((one) => one.role === 'images-school-a')) await sleep(100)
    await lab.ok('master', [...delegate, '--end', ...by('t')])
    const roles = async (machine: string): Promise<string[]> =>
      ((await show(machine)).roles as RoleSeen[]).map((one) => one.role)
    while ((await roles('pc1')).includes('images-school-a')) await sleep(100)
    const releases = await lab.ok('pc1', ['releases', '--image', 'school-a/win'])
    expect(releases).toMatchObject({ releases: [{ release: 1 }] })
    await lab.ok('master', ['site', 'rotate', 'targets', ...by('t')])
  })

  it('are nowhere in the clear: not on sticks, in what commands print, or in what they are called with', async () => {
    const pems = await Promise.all(
      (await readdir(lab.path('master', 'keys')))
        .filter((name) => name.endsWith('.pem'))
        .map((name) => readFile(lab.path('master', 'keys', name), 'utf8')),
    )
    expect(pems).toHaveLength(ROLES.length)
    for (const name of await readdir(lab.path('sticks')))
      expect(await readFile(stick(name), 'utf8')).not.toMatch(/PRIVATE KEY|the passphrase of/)
  })
})

const OLD = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
`
