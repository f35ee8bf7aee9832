import { copyFile, cp, readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 16

describe('becoming a member, and being one no longer', () => {
  const random = new Random(testSeed('membership'))
  let lab: Lab
  let image: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
  })
  afterAll(() => lab.close())

  const peersOf = async (machine: string): Promise<MeshEvent[]> =>
    (await lab.ok(machine, ['peers'])).peers as unknown as MeshEvent[]
  const members = async (): Promise<unknown[]> => (await peersOf('master')).map(({ name }) => name)
  const fails = async (machine: string, args: readonly string[], code: ErrorCode, exit: number): Promise<void> => {
    const outcome = await lab.run(machine, args)
    expect([outcome.result?.code, outcome.code], outcome.stderr).toEqual([code, exit])
  }
  const machineFile = async (machine: string): Promise<MeshEvent> =>
    JSON.parse(await readFile(lab.path(machine, 'machine.json'), 'utf8')) as MeshEvent

  it('leaves no member and uses up nothing when a join fails, whatever is wrong', async () => {
    const token = await lab.invite('master', 1)
    const before = await members()
    await writeFile(lab.path('small.img'), new Uint8Array(BLOCK))
    await writeFile(lab.path('pc1.img'), new Uint8Array(image.byteLength))
    const join = (...args: string[]): string[] => ['join', token, '--name', 'pc1', ...args]
    await fails('pc1', join('--disk', lab.path('small.img')), 'DISK_TOO_SMALL', EXIT.disk)
    await fails('pc1', join('--disk', lab.path('pc1.img'), '--image', 'nope'), 'IMAGE_UNKNOWN', EXIT.trust)
    await fails('pc1', join(), 'USAGE', EXIT.usage)
    await fails('pc1', join('--disk', lab.path('pc1.img'), '--name', 'Master'), 'NAME_TAKEN', EXIT.trust)
    expect(await members()).toEqual(before)
    // Not by another machine that tried and failed either.
    await fails('other', join('--disk', lab.path('small.img')), 'DISK_TOO_SMALL', EXIT.disk)
    await lab.ok('pc1', join('--disk', lab.path('pc1.img')))
    await lab.ok('pc1', join('--disk', lab.path('pc1.img')))
    expect(await members()).toEqual([...before, 'pc1'])
    await fails('other', ['join', token, '--name', 'pc2', '--disk', lab.path('pc1.img')], 'TOKEN_USED_UP', EXIT.trust)
  })

  it('keeps key, disk and settings of a machine that joins again under another name', async () => {
    await (await lab.serve('pc1', ['up', '--max-upload', '400Mbit'])).stop()
    const { id, disk, diskIdentity, serving } = await machineFile('pc1')
    expect(serving).toMatchObject({ maxUpload: 50_000_000 })
    await lab.ok('pc1', ['join', await lab.invite('master', 1), '--name', 'pc1b'])
    expect(await machineFile('pc1')).toMatchObject({ name: 'pc1b', id, disk, diskIdentity, serving, image: 'model' })
    expect(await members()).toEqual(['pc1b'])
  })

  it('tells a machine that it was removed, also one that was off then, and nothing lets its key in again', async () => {
    const token = await lab.invite('master', 5)
    for (const machine of ['pc3', 'pc4', 'pc5']) await joinMachine(lab, machine, image, token)
    for (const machine of ['pc3', 'pc5']) await lab.ok(machine, ['restore'])
    const pc3 = await lab.serve('pc3', ['up'])
    await pc3.event('peer')
    await lab.ok('master', ['remove', 'PC3'])
    const ended = await pc3.exited
    expect([ended.result?.code, ended.code], ended.stderr).toEqual(['MEMBER_REMOVED', EXIT.removed])
    expect(ended.stderr).toMatch(/pc3 was removed from site lab at 20/)
    await fails('pc3', ['up'], 'MEMBER_REMOVED', EXIT.removed)
    expect(await lab.ok('pc3', ['status'])).toMatchObject({ removed: { at: expect.stringMatching(/^20/) } })

    // pc4 was never restored, and hears of it from another machine than the master.
    await lab.serve('pc5', ['up'])
    const pc4 = await lab.serve('pc4', ['up'])
    // It has said hello: its addresses are known.
    while (!(await peersOf('pc4')).some(({ name, held }) => name === 'pc5' && held === BLOCKS)) await sleep(50)
    await pc4.stop()
    expect((await lab.ok('pc4', ['status'])).removed).toBeUndefined()
    await lab.ok('master', ['remove', 'pc4'])
    while ((await peersOf('pc5')).some(({ name }) => name === 'pc4')) await sleep(50)
    await lab.stop('master')
    await fails('pc4', ['restore'], 'MEMBER_REMOVED', EXIT.removed)
    await lab.serve('master', ['up'])

    for (const machine of ['pc3', 'pc4'])
      await fails(machine, ['join', token, '--name', machine], 'MEMBER_REMOVED', EXIT.removed)
    expect(await members()).not.toContain('pc3')
    const fresh = await lab.invite('master', 1)
    await fails('pc3', ['join', fresh, '--name', 'pc3'], 'MEMBER_REMOVED', EXIT.removed)
    // The key that was refused has used up nothing.
    const { id: old } = await machineFile('pc3')
    expect((await lab.ok('pc3', ['join', fresh, '--name', 'pc3', '--new-identity'])).id).not.toBe(old)
    expect((await lab.ok('pc3', ['status'])).removed).toBeUndefined()
    await dirty(lab.path('pc3.img'), [3, 5], random)
    expect(await lab.ok('pc3', ['restore'])).toMatchObject({ verified: true })
  })

  it('lists invitations, and lets nobody in by one that was taken back', async () => {
    const [used, open] = [await lab.invite('master', 1), await lab.invite('master', 3)]
    await joinMachine(lab, 'pc8', image, used)
    const list = async (): Promise<MeshEvent[]> =>
      (await lab.ok('master', ['invite', '--list'])).invitations as unknown as MeshEvent[]
    const one = (await list()).find(({ uses, state }) => uses === 3 && state === 'open')
    expect(await list()).toContainEqual(expect.objectContaining({ state: 'used up', usedBy: ['pc8'] }))
    const id = String(one?.id)
    expect(await lab.ok('master', ['invite', '--revoke', id.slice(0, 12), '--dry-run'])).toMatchObject({ dryRun: true })
    expect((await list()).find((it) => it.id === id)).toMatchObject({ state: 'open' })
    expect(await lab.ok('master', ['invite', '--revoke', id.slice(0, 12)])).toMatchObject({ invitations: [{ id }] })
    await writeFile(lab.path('pc9.img'), new Uint8Array(image.byteLength))
    const join = ['join', open, '--name', 'pc9', '--disk', lab.path('pc9.img')]
    await fails('pc9', join, 'TOKEN_REVOKED', EXIT.trust)
    await fails('master', ['invite', '--revoke', id.slice(0, 12)], 'TOKEN_UNKNOWN', EXIT.trust)
    await lab.ok('master', ['invite', '--revoke', 'all'])
    expect((await list()).filter(({ state }) => state === 'open')).toEqual([])
    await lab.ok('pc9', ['join', await lab.invite('master', 1), ...join.slice(2)])
  })

  it('names two machines that run with one key, on both and on the master, and gives the copy a key of its own', async () => {
    await joinMachine(lab, 'pc6', image, await lab.invite('master'))
    await lab.ok('pc6', ['restore'])
    await cp(lab.path('pc6'), lab.path('copy'), { recursive: true })
    await copyFile(lab.path('pc6.img'), lab.path('copy.img'))
    const config = await machineFile('pc6')
    await writeFile(lab.path('copy', 'machine.json'), JSON.stringify({ ...config, disk: lab.path('copy.img') }))
    const running = await Promise.all(['pc6', 'copy'].map((machine) => lab.serve(machine, ['up'])))
    for (const up of running) {
      const warned = await up.when(
        ({ event, text }) => event === 'warning' && /as (master|pc5) says/.test(String(text)),
      )
      expect(warned?.text).toMatch(/host .*(pc6|copy)\.img.*this machine is host .*(pc6|copy)\.img/)
    }
    const shared = (await peersOf('master')).find(({ name }) => name === 'pc6')
    expect(shared).toMatchObject({ twins: { machines: [{ disk: expect.any(String) }, { disk: expect.any(String) }] } })
    const twins = [expect.objectContaining({ disk: expect.stringMatching(/copy\.img/) })]
    expect(await lab.ok('pc6', ['status'])).toMatchObject({ twins: { machines: twins } })

    await lab.stop('copy')
    const join = ['join', await lab.invite('master', 1), '--new-identity', '--name']
    await fails('copy', [...join, 'PC6'], 'NAME_TAKEN', EXIT.trust)
    // What failed before goes on with the same new key.
    expect((await lab.ok('copy', [...join, 'pc7'])).id).not.toBe(config.id)
    expect(await machineFile('copy')).toMatchObject({ name: 'pc7', disk: lab.path('copy.img') })
    expect(await lab.ok('copy', ['restore'])).toMatchObject({ verified: true })
    expect(await members()).toEqual(expect.arrayContaining(['pc6', 'pc7']))
  })

  it('stops a master that hears of another one made from its copy, until somebody says which one stays', async () => {
    for (const machine of ['pc5', 'pc6', 'master']) await lab.stop(machine)
    await cp(lab.path('master'), lab.path('master2'), { recursive: true })
    for (const [master, block] of Object.entries({ master: 1, master2: 2 })) {
      await copyFile(lab.path('model.img'), lab.path(`${master}.img`))
      await dirty(lab.path(`${master}.img`), [block], random)
      await lab.ok(master, ['seed', lab.path(`${master}.img`), '--once', '--force', '--accept-new-disk'])
      // One machine hears of each.
      if (master === 'master2') break
      await lab.serve('master', ['up'])
      const pc6 = await lab.serve('pc6', ['up'])
      await pc6.event('staged')
      for (const machine of ['master', 'pc6']) await lab.stop(machine)
    }
    const pc6 = await lab.serve('pc6', ['up'])
    const master2 = await lab.serve('master2', ['up'])
    for (const running of [pc6, master2]) {
      const warned = await running.when(({ event, text }) => event === 'warning' && /signed twice/.test(String(text)))
      expect(warned?.text).toMatch(/was signed twice, with other content, as (pc6|master) proves/)
    }
    for (const args of [['invite'], ['remove', 'pc6']]) await fails('master2', args, 'METADATA_FORKED', EXIT.trust)
    await lab.stop('master2')
    await fails('master2', ['seed', lab.path('master2.img'), '--once'], 'METADATA_FORKED', EXIT.trust)
    const published = await lab.ok('master2', ['seed', lab.path('master2.img'), '--once', '--force'])
    expect(published).toMatchObject({ release: 3, unchanged: false })
    await lab.serve('master2', ['up'])
    await pc6.when(({ event, release }) => event === 'staged' && release === 3)
    expect(await lab.ok('pc6', ['releases'])).toMatchObject({ releases: expect.anything() })
    await lab.ok('master2', ['invite'])
  })
})
