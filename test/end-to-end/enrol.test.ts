import { readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { macAddresses } from '../../node/agent/machine/mac-addresses.ts'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 64

/** All machines of this test stand on one computer, and have its network cards: what comes later comes back. */
describe('a machine without a token', () => {
  const random = new Random(testSeed('enrol'))
  let lab: Lab
  let image: Buffer
  let siteId: string

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    siteId = String((await lab.ok('master', ['machines'])).siteId)
  })
  afterAll(() => lab.close())

  const listed = async (): Promise<MeshEvent[]> =>
    (await lab.ok('master', ['machines'])).machines as unknown as MeshEvent[]
  const members = async (): Promise<unknown[]> =>
    ((await lab.ok('master', ['peers'])).peers as unknown as MeshEvent[]).map(({ name }) => name)
  const fails = async (args: readonly string[], code: ErrorCode, exit: number): Promise<string> => {
    const outcome = await lab.run('master', args)
    expect([outcome.result?.code, outcome.code], outcome.stderr).toEqual([code, exit])
    return outcome.stderr
  }
  /** Starts `mesh enrol`, which knows the site and where the master is, with a blank disk unless there is one. */
  const enrol = async (machine: string, ...more: string[]): Promise<MeshProcess> => {
    await writeFile(lab.path(`${machine}.img`), '', { flag: 'a' })
    await truncate(lab.path(`${machine}.img`), image.byteLength)
    const master = lab.address('master')!
    const args = ['enrol', '--site-id', siteId, '--master', master, '--disk', lab.path(`${machine}.img`), ...more]
    return lab.start(machine, args)
  }
  const waits = async (machine: MeshProcess): Promise<MeshEvent> => {
    const code = (await machine.event('waiting')).code
    let isOver = false
    void machine.exited.then(() => (isOver = true))
    while (!isOver) {
      const found = (await listed()).find((one) => one.code === code)
      if (found !== undefined) return found
      await sleep(50)
    }
    throw new Error(`mesh enrol ended: ${(await machine.exited).stdout}`)
  }
  const ended = async (machine: MeshProcess, code: number): Promise<MeshEvent> => {
    const outcome = await machine.exited
    expect(outcome.code, outcome.stderr).toBe(code)
    return outcome.result!
  }

  it('asks, is listed with what it is, goes on with its key when it is started anew, and restores once approved', async () => {
    const first = await enrol('pc1', '--name', 'pc1')
    const seen = await waits(first)
    expect(seen).toMatchObject({
      name: 'pc1',
      state: 'waiting',
      mac: await macAddresses(),
      memory: expect.any(Number),
      disk: lab.path('pc1.img'),
      holds: '',
      address: '127.0.0.1',
      since: expect.stringMatching(/^20/),
    })
    expect(seen.memory).toBeGreaterThan(0)
    expect(await members()).toEqual([])
    await first.stop('SIGKILL')
    const again = await enrol('pc1', '--name', 'pc1')
    expect(await waits(again)).toMatchObject({ code: seen.code, id: seen.id, since: seen.since })
    await fails(['approve', 'pc2'], 'NOBODY_WAITS', EXIT.trust)
    await fails(['approve', '--code', '00000-00000'], 'NOBODY_WAITS', EXIT.trust)
    await fails(['approve'], 'USAGE', EXIT.usage)

    const approved = await lab.ok('master', ['approve', '--code', String(seen.code).toLowerCase(), '--group', 'lab-a'])
    expect(approved).toMatchObject({ machines: [{ name: 'pc1', code: seen.code, wipe: false }], left: [] })
    expect(await ended(again, 0)).toMatchObject({ event: 'enrolled', name: 'pc1', group: 'lab-a', mayWipe: false })
    // It was connected all the time.
    expect(again.events.flatMap(({ event, why }) => (event === 'waiting' ? [why] : []))).toEqual([''])
    expect(await members()).toEqual(['pc1'])
    expect(await listed()).toEqual([])
    expect(await lab.ok('pc1', ['restore'])).toMatchObject({ verified: true })
    expect((await readFile(lab.path('pc1.img'))).equals(image)).toBe(true)
    // One that asks again, of whose disk it knows what it holds, is told what it is.
    expect(await ended(await enrol('pc1', '--name', 'other'), 0)).toMatchObject({ name: 'pc1', group: 'lab-a' })
  })

  it('comes back under its name when its state is lost, and its old key is refused', async () => {
    const up = await lab.serve('pc1', ['up'])
    await up.event('peer')
    const back = await enrol('pc1-again', '--name', 'something')
    const seen = await waits(back)
    expect(seen).toMatchObject({ name: 'pc1', wanted: 'something', replaces: 'pc1' })
    // The old key is in use: somebody else may claim its network card.
    expect(seen.problem).toMatch(/pc1, which is connected with another key/)
    expect(await fails(['approve', 'pc1'], 'NAME_TAKEN', EXIT.trust)).toMatch(/is connected/)
    await up.stop()
    while ((await listed())[0]?.problem !== undefined) await sleep(50)
    expect(await lab.ok('master', ['approve', 'PC1'])).toMatchObject({ machines: [{ name: 'pc1', replaces: 'pc1' }] })
    const enrolled = await ended(back, 0)
    expect(enrolled).toMatchObject({ name: 'pc1', group: 'lab-a' })
    expect(await members()).toEqual(['pc1'])
    expect(await lab.ok('pc1-again', ['restore'])).toMatchObject({ verified: true })
    const old = await lab.run('pc1', ['up'])
    expect([old.result?.code, old.code], old.stderr).toEqual(['MEMBER_REMOVED', EXIT.removed])
    // Its key never comes in again, whatever is approved.
    await lab.stop('pc1')
    await rm(lab.path('pc1.img'))
    const asks = await enrol('pc1', '--wait', '20s')
    expect(await ended(asks, EXIT.removed)).toMatchObject({ code: 'MEMBER_REMOVED' })
    const anew = await enrol('pc1', '--wait', '1s', '--new-identity')
    expect(await ended(anew, EXIT.unavailable)).toMatchObject({ code: 'NOT_APPROVED' })
  })

  it('is refused, with a code that says so, until somebody takes that back', async () => {
    const one = await enrol('pc3', '--name', 'pc3')
    const { code } = await waits(one)
    expect(await lab.ok('master', ['refuse', '--code', String(code)])).toMatchObject({ machines: [{ code }] })
    expect(await ended(one, EXIT.trust)).toMatchObject({ code: 'ENROLMENT_REFUSED' })
    expect(await ended(await enrol('pc3'), EXIT.trust)).toMatchObject({ code: 'ENROLMENT_REFUSED' })
    expect((await listed()).find((it) => it.code === code)).toMatchObject({ state: 'refused' })
    // Nobody lets it in by letting all in.
    const all = await lab.ok('master', ['approve', '--all'])
    expect((all.machines as MeshEvent[]).map((it) => it.code)).not.toContain(code)
    await lab.ok('master', ['approve', '--code', String(code), '--as', 'pc3'])
    expect(await ended(await enrol('pc3'), 0)).toMatchObject({ name: 'pc3' })
    await lab.ok('master', ['remove', 'pc3'])
  })

  it('is let in by a list before it asks, once for each line', async () => {
    const [mac] = await macAddresses()
    const dashes = mac!.toUpperCase().replaceAll(':', '-')
    await writeFile(lab.path('machines.csv'), `MAC;Name;Group\r\n${dashes};pc4;lab b\r\n02:00:5e:10:00:99;pc5;\r\n`)
    const listed = await lab.ok('master', ['approve', '--list', lab.path('machines.csv'), '--ttl', '1h'])
    expect(listed).toMatchObject({ listed: 2, machines: [], expires: expect.stringMatching(/^20/) })
    const standing = (await lab.ok('master', ['machines'])).approvals
    expect(standing).toMatchObject(
      [
        { for: '02:00:5e:10:00:99', name: 'pc5' },
        { for: mac, name: 'pc4', group: 'lab b' },
      ].toSorted((a, b) => String(a.for).localeCompare(String(b.for))),
    )
    // It was pc1, or pc3, by its network card.
    for (const name of await members()) await lab.ok('master', ['remove', String(name)])
    expect(await ended(await enrol('pc4', '--name', 'x'), 0)).toMatchObject({ name: 'pc4', group: 'lab b' })
    const second = await enrol('pc4b', '--wait', '1s')
    expect(await ended(second, EXIT.unavailable)).toMatchObject({ code: 'NOT_APPROVED' })
    await writeFile(lab.path('wrong.csv'), 'MAC,Name\n02:00:5e:10:00:01,pc 5\n')
    expect(await fails(['approve', '--list', lab.path('wrong.csv')], 'USAGE', EXIT.usage)).toMatch(/line 2: "pc 5"/)
    await lab.ok('master', ['remove', 'pc4'])
  })

  it('gets no disk that holds something unknown, unless its approval says so', async () => {
    await writeFile(lab.path('pc6.img'), new Uint8Array(image.byteLength))
    await runTool('mke2fs', ['-q', '-F', '-t', 'ext4', lab.path('pc6.img')])
    const before = await readFile(lab.path('pc6.img'))
    const one = await enrol('pc6', '--name', 'pc6')
    expect(await waits(one)).toMatchObject({ holds: 'ext4', problem: expect.stringMatching(/holds ext4/) })
    expect(await fails(['approve', 'pc6'], 'DISK_FOREIGN', EXIT.disk)).toMatch(/pc6\.img of pc6 holds ext4/)
    const all = await lab.ok('master', ['approve', '--all', '--ttl', '1h'])
    expect(all).toMatchObject({ left: [{ name: 'pc6', why: expect.stringMatching(/ext4/) }] })
    // It hears why it waits on.
    expect(await one.when(({ event, why }) => event === 'waiting' && /holds ext4/.test(String(why)))).toBeDefined()
    expect(await members()).toEqual([])
    expect((await readFile(lab.path('pc6.img'))).equals(before)).toBe(true)
    expect(await lab.ok('master', ['approve', 'pc6', '--wipe'])).toMatchObject({ machines: [{ wipe: true }] })
    expect(await ended(one, 0)).toMatchObject({ name: 'pc6', mayWipe: true })
    expect((await readFile(lab.path('pc6.img'))).equals(before)).toBe(true)
    expect(await lab.ok('pc6', ['restore'])).toMatchObject({ verified: true })
    expect((await readFile(lab.path('pc6.img'))).equals(image)).toBe(true)
  })

  it('trusts no false master, waits for one that is away, and takes the site from its root metadata, too', async () => {
    await writeFile(lab.path('false.img'), random.bytes(image.byteLength))
    await lab.serve('false', ['seed', lab.path('false.img')])
    const misled = await lab.start('pc7', [
      ...['enrol', '--site-id', siteId, '--disk', lab.path('pc6.img'), '--name', 'pc7', '--wait', '1s'],
      ...['--master', lab.address('false')!],
    ])
    expect(await misled.event('waiting')).toMatchObject({
      why: expect.stringMatching(/is not the master of site [0-9a-f]{8}: this master serves another site, lab$/),
    })
    const outcome = await ended(misled, EXIT.trust)
    expect(outcome).toMatchObject({ code: 'METADATA_INVALID', message: expect.stringMatching(/serves another site/) })
    expect((await lab.ok('false', ['machines'])).machines).toEqual([])
    const nowhere = await lab.run('pc7', ['enrol', '--site-id', siteId, '--disk', lab.path('pc6.img')])
    expect([nowhere.result?.code, nowhere.code]).toEqual(['USAGE', EXIT.usage])
    await lab.stop('master')
    await writeFile(lab.path('pc8.img'), new Uint8Array(image.byteLength))
    const early = await enrol('pc8', '--name', 'pc8')
    expect(await early.event('waiting')).toMatchObject({ why: 'looks for the master' })
    const alone = await enrol('pc9', '--wait', '1s')
    expect(await ended(alone, EXIT.network)).toMatchObject({ code: 'PEERS_UNREACHABLE' })
    await lab.serve('master', ['up'])
    await waits(early)
    await early.stop()
    expect((await early.exited).result).toMatchObject({ code: 'INTERRUPTED' })
    const root = lab.path('master', 'trust', (await readFile(lab.path('master', 'trust', 'CURRENT'), 'utf8')).trim())
    const byFile = await lab.start('pc8', [
      ...['enrol', '--site-file', `${root}/1.root.json`, '--master', lab.address('master')!, '--name', 'pc8'],
      ...['--disk', lab.path('pc8.img')],
    ])
    expect(await waits(byFile)).toMatchObject({ wanted: 'pc8', name: 'pc6' })
    await byFile.stop()
  })
})
