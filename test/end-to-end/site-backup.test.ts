import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { copyFile, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { openPseudoTerminal } from '../support/pseudo-terminal.ts'
import { testSeed } from '../support/seed.ts'

const MESH = join(import.meta.dirname, '../../tools/mesh.ts')
const BLOCKS = 8
const WAIT_MS = 120_000
const PASSPHRASE = 'correct horse battery staple'

describe('a master in one sealed file', { timeout: 3 * WAIT_MS }, () => {
  const random = new Random(testSeed('site backup'))
  let lab: Lab
  let image: Buffer
  const passphrase = (): string[] => ['--passphrase-file', lab.path('passphrase')]
  const file = (): string => lab.path('stick', 'school.mesh-backup')
  const fails = async (machine: string, args: readonly string[], code: ErrorCode, exit: number): Promise<void> => {
    const outcome = await lab.run(machine, args)
    expect([outcome.result?.code, outcome.code], outcome.stderr).toEqual([code, exit])
    expect(outcome.stdout + outcome.stderr).not.toContain(PASSPHRASE)
  }

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'pc1', image, await lab.invite('master'))
    await lab.ok('pc1', ['restore'])
    const { mkdir } = await import('node:fs/promises')
    await mkdir(lab.path('stick'))
    await writeFile(lab.path('passphrase'), `${PASSPHRASE}\nanother line\n`)
    await writeFile(lab.path('wrong'), 'correct horse battery stable\n')
    await writeFile(lab.path('weak'), 'hunter2\n')
  }, WAIT_MS)
  afterAll(() => lab.close())

  it('is written while the master runs, for its owner only, and nothing secret is in the clear', async () => {
    const backup = (...args: string[]): string[] => ['site', 'backup', file(), ...args]
    expect(await lab.ok('master', backup('--dry-run'))).toMatchObject({ dryRun: true, members: 2 })
    expect(await readdir(lab.path('stick'))).toEqual([])
    await fails('master', backup('--passphrase-file', lab.path('weak')), 'PASSPHRASE_WEAK', EXIT.usage)
    await fails('master', backup(), 'USAGE', EXIT.usage)
    await fails('pc1', backup(...passphrase()), 'STATE_NOT_MASTER', EXIT.state)
    expect(await lab.ok('master', backup(...passphrase()))).toMatchObject({
      releases: [{ image: 'model', release: 1 }],
    })
    await fails('master', backup(...passphrase()), 'USAGE', EXIT.usage)
    expect((await stat(file())).mode & 0o777).toBe(0o600)
    expect(await readdir(lab.path('stick'))).toEqual(['school.mesh-backup'])
    const text = await readFile(file(), 'utf8')
    for (const key of await readdir(lab.path('master', 'keys'))) {
      const secret = (await readFile(lab.path('master', 'keys', key), 'utf8')).split('\n')[1]!
      expect(text).not.toContain(secret)
      expect(text).not.toContain(Buffer.from(secret).toString('base64').slice(0, 40))
    }
  })

  it('opens with its passphrase only, and not if it is damaged', async () => {
    const restore = (path: string, ...args: string[]): string[] => ['site', 'restore', path, ...args]
    await fails('master2', restore(file(), '--passphrase-file', lab.path('wrong')), 'PASSPHRASE_WRONG', EXIT.trust)
    const text = await readFile(file(), 'utf8')
    for (const broken of [
      text.slice(0, -40),
      text.replace('"site":"lab"', '"site":"lob"'),
      `${text.slice(0, 600)}A${text.slice(601)}`,
    ]) {
      await writeFile(lab.path('broken'), broken)
      await fails('master2', restore(lab.path('broken'), ...passphrase()), 'SEALED_DAMAGED', EXIT.trust)
    }
    await writeFile(lab.path('newer'), text.replace('"format":1', '"format":2'))
    await fails('master2', restore(lab.path('newer'), ...passphrase()), 'FORMAT_NEWER', EXIT.newer)
    await fails('pc1', restore(file(), ...passphrase()), 'STATE_OTHER_SITE', EXIT.state)
    expect(await lab.ok('master2', restore(file(), ...passphrase(), '--dry-run'))).toMatchObject({ name: 'master' })
    await fails('master2', ['status'], 'STATE_MISSING', EXIT.state)
  })

  it('is the master on another computer, which machines follow untouched, and the old one notices', async () => {
    // The backup is older than the lab in the end: another release, and a machine that was removed.
    await joinMachine(lab, 'pc2', image, await lab.invite('master'))
    await dirty(lab.path('model.img'), [1], random)
    const pc1 = await lab.serve('pc1', ['up'])
    await lab.stop('master')
    await lab.serve('master', ['seed', lab.path('model.img')])
    await lab.ok('master', ['remove', 'pc2'])
    expect(await pc1.event('staged')).toMatchObject({ release: 2 })
    while (((await lab.ok('pc1', ['status'])).members as number) > 2)
      await new Promise((resolve) => setTimeout(resolve, 100))
    await lab.stop('master')

    await lab.ok('master2', ['site', 'restore', file(), ...passphrase()])
    for (const key of await readdir(lab.path('master2', 'keys')))
      expect((await stat(lab.path('master2', 'keys', key))).mode & 0o777).toBe(0o600)
    // Nobody has told it yet what was signed since.
    await copyFile(lab.path('model.img'), lab.path('model2.img'))
    await lab.stop('pc1')
    const seed = ['seed', lab.path('model2.img'), '--image', 'model', '--once', '--accept-new-disk']
    await fails('master2', seed, 'METADATA_FORKED', EXIT.trust)
    await lab.serve('pc1', ['up'])
    const master2 = await lab.serve('master2', ['up'])
    expect(await master2.when(({ event, text }) => event === 'note' && /from now on/.test(String(text)))).toBeDefined()
    const view = await lab.ok('master2', ['status'])
    expect(view).toMatchObject({ members: 2 })
    expect((await lab.ok('master2', ['releases'])).releases).toHaveLength(2)
    // A machine that was removed meanwhile stays out, and a new one comes in.
    await fails('pc2', ['join', await lab.invite('master2'), '--name', 'pc2'], 'MEMBER_REMOVED', EXIT.removed)
    await joinMachine(lab, 'pc3', image, await lab.invite('master2'))
    const knows = async (machine: string): Promise<unknown> => (await lab.ok(machine, ['status'])).members
    while ((await knows('pc1')) !== 3) await new Promise((resolve) => setTimeout(resolve, 100))

    // The old one comes back, hears of the new one, and signs nothing.
    await lab.stop('master2')
    const old = await lab.serve('master', ['up'])
    const warned = await old.when(({ event, text }) => event === 'warning' && /another master/.test(String(text)))
    expect(warned?.text).toMatch(/signs for the site/)
    for (const args of [['invite'], ['remove', 'pc3']]) await fails('master', args, 'METADATA_FORKED', EXIT.trust)
    await lab.stop('master')
    await lab.serve('master2', ['up'])
    expect(await lab.ok('master2', ['invite'])).toMatchObject({ event: 'invitation' })
    await lab.stop('master2')
    await fails('master', ['seed', lab.path('model.img'), '--once'], 'METADATA_FORKED', EXIT.trust)
    // Somebody says that the old one stays after all.
    await lab.serve('master', ['seed', lab.path('model.img'), '--force'])
    await lab.invite('master')
    const new2 = await lab.serve('master2', ['up'])
    expect(
      await new2.when(({ event, text }) => event === 'warning' && /another master/.test(String(text))),
    ).toBeDefined()
    await fails('master2', ['invite'], 'METADATA_FORKED', EXIT.trust)
    for (const machine of ['master', 'master2']) await lab.stop(machine)
  })

  it('asks for the passphrase on the terminal, twice, and shows nothing of it', async () => {
    const terminal = await openPseudoTerminal()
    const fd = openSync(terminal.path, constants.O_RDWR | constants.O_NOCTTY)
    const args = ['site', 'backup', lab.path('stick', 'typed'), '--state', lab.path('master')]
    const start = (): ChildProcess =>
      spawn(process.execPath, [...NODE_FLAGS, MESH, ...args], { stdio: [fd, 'ignore', fd] })
    const ended = (child: ChildProcess): Promise<number | null> => new Promise((resolve) => child.on('close', resolve))
    const first = start()
    await terminal.shows('Passphrase for the backup')
    terminal.type(`${PASSPHRASE}x\u007f\r`)
    await terminal.shows('once more')
    terminal.type('something else\r')
    expect(await ended(first)).toBe(EXIT.usage)
    const from = terminal.shown().length
    const second = start()
    for (const prompt of ['Passphrase for the backup', 'once more']) {
      await terminal.shows(prompt, from)
      terminal.type(`${PASSPHRASE}\r`)
    }
    expect(await ended(second)).toBe(0)
    const third = start()
    expect(await ended(third)).toBe(EXIT.usage)
    expect(terminal.shown()).not.toContain('staple')
    closeSync(fd)
    const restore = ['site', 'restore', lab.path('stick', 'typed'), '--dry-run', ...passphrase()]
    expect(await lab.ok('master9', restore)).toMatchObject({ site: 'lab' })
  })

  it('is begun again if it was cut short', async () => {
    // What would be restored is proven, and nothing is written.
    expect(await lab.ok('master3', ['site', 'restore', file(), '--dry-run', ...passphrase()])).toMatchObject({
      dryRun: true,
      members: 2,
    })
    await lab.ok('master3', ['site', 'restore', file(), ...passphrase()])
    await rm(join(lab.path('master3'), 'machine.json'))
    await rm(join(lab.path('master3'), 'keys', 'root.pem'))
    const again: MeshEvent = await lab.ok('master3', ['site', 'restore', file(), ...passphrase()])
    expect(again).toMatchObject({ event: 'site-restored', site: 'lab', members: 2 })
    expect(await readdir(lab.path('master3', 'keys'))).toContain('root.pem')
  })
})
