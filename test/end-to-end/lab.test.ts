import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { VERSION } from '../../tools/cli/version.ts'
import { Lab, type MeshEvent, MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 16

interface Machine extends MeshEvent {
  readonly name: string
  readonly level: string
}

describe('the lab at a glance', () => {
  const random = new Random(testSeed('lab'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    const office = await lab.ok('master', ['invite', '--role', 'operator'])
    await lab.ok('office', ['join', String(office.token), '--name', 'office'])
    const token = await lab.invite('master')
    for (const machine of ['pc1', 'pc2', 'pc3']) await joinMachine(lab, machine, image, token)
  })
  afterAll(() => lab.close())

  const lookFrom = async (machine: string, ...args: string[]): Promise<Machine[]> =>
    (await lab.ok(machine, ['lab', ...args])).machines as unknown as Machine[]
  /** What people see. */
  const printed = (machine: string, ...args: string[]) =>
    new MeshProcess(['lab', '--no-mdns', '--state', lab.path(machine), '--listen', lab.address(machine)!, ...args])
      .exited
  const named = (machines: readonly Machine[], name: string): Machine => machines.find((one) => one.name === name)!

  it('shows who is on, what is on the disks and when it was verified; trouble first', async () => {
    await lab.ok('pc1', ['restore'])
    await lab.serve('pc1', ['up'])
    await lab.run('pc2', ['restore', '--image', 'nope'])
    await lab.serve('office', ['up'])
    await lab.serve('pc2', ['up'])
    const machines = await lookFrom('office')
    expect(machines.map(({ name, level }) => [name, level])).toEqual([
      ['pc2', 'critical'],
      ['pc3', 'warning'],
      ['master', 'ok'],
      ['office', 'ok'],
      ['pc1', 'ok'],
    ])
    expect(named(machines, 'pc1')).toMatchObject({
      role: 'machine',
      group: 'lab',
      state: 'on',
      version: VERSION,
      device: lab.path('pc1.img'),
      disk: { image: 'model', release: 1, whole: true },
      newest: 1,
      inUse: false,
      restore: { verified: true, release: 1, log: 'scan', fetched: BLOCKS, from: [{ name: 'master', blocks: BLOCKS }] },
      trouble: [],
    })
    expect(named(machines, 'pc1').addresses).toContainEqual(expect.stringMatching(/^\/ip4\/127\.0\.0\.1\/tcp\/\d+$/))
    expect(named(machines, 'pc2').trouble).toEqual([expect.stringMatching(/^NOT verified at .*: .*nope/)])
    expect(named(machines, 'pc3')).toMatchObject({ state: 'never seen', trouble: ['has told nothing yet'] })
    expect(named(machines, 'master')).toMatchObject({ disk: { image: 'model', release: 1 }, state: 'on' })
    expect((await lookFrom('office', '--trouble')).map(({ name }) => name)).toEqual(['pc2', 'pc3'])
    expect(await lookFrom('office', '--group', 'lab')).toHaveLength(5)
    expect((await lab.run('office', ['lab', '--group', 'lob'])).result).toMatchObject({ code: 'GROUP_UNKNOWN' })
    expect((await lab.run('pc1', ['lab'])).result).toMatchObject({ code: 'NOT_AN_OPERATOR' })
  })

  it('remembers what machines told that are off now, with the master off, too', async () => {
    await lab.stop('master')
    await lab.stop('pc1')
    const [pc1] = [named(await lookFrom('office'), 'pc1')]
    expect(pc1).toMatchObject({
      state: 'off',
      level: 'ok',
      disk: { release: 1, whole: true },
      restore: { verified: true },
    })
    expect(Date.parse(String(pc1.seenAt))).toBeGreaterThan(Date.now() - 600_000)
    expect(named(await lookFrom('office', '--away', '1s'), 'pc1')).toMatchObject({
      level: 'warning',
      trouble: [expect.stringMatching(/^not seen since /)],
    })
    // Nobody keeps watch: the command asks by itself.
    await lab.stop('office')
    expect(named(await lookFrom('office'), 'pc2')).toMatchObject({ state: 'on', level: 'critical' })
    expect(named(await lookFrom('office'), 'pc1')).toMatchObject({ state: 'off', disk: { release: 1 } })
  })

  it('answers as a plugin of a monitoring system does', async () => {
    const check = async (...args: string[]) => {
      const { code, stdout } = await printed('office', '--check', ...args)
      return { code, line: stdout.trim() }
    }
    const wrong = await check()
    expect(wrong.code).toBe(2)
    expect(wrong.line).toMatch(
      /^MESH CRITICAL - 1 of 5 machines wrong, 1 to look at: pc2 NOT verified .* \| right=3;;;0;5 warning=1;;;0;5 critical=1;;;0;5 off=\d;;;0;5$/,
    )
    await lab.stop('pc2')
    await lab.serve('master', ['up'])
    await lab.ok('pc2', ['restore'])
    await lab.ok('pc3', ['restore'])
    for (const machine of ['pc2', 'pc3']) await lab.serve(machine, ['up'])
    expect(await check()).toMatchObject({ code: 0, line: expect.stringMatching(/^MESH OK - 5 machines right/) })
    expect(await check('--group', 'lob')).toEqual({
      code: 3,
      line: expect.stringMatching(/^MESH UNKNOWN - .*lob/),
    })
  })

  it('says which release waits on a machine for its next restore', async () => {
    await lab.stop('master')
    await dirty(lab.path('model.img'), [3], random)
    await lab.serve('master', ['seed', lab.path('model.img')])
    let pc2: Machine
    do pc2 = named(await lookFrom('master'), 'pc2')
    while ((pc2.staged as { done?: boolean } | undefined)?.done !== true)
    expect(pc2).toMatchObject({ level: 'ok', newest: 2, disk: { release: 1 }, staged: { release: 2, done: true } })
    const { stdout } = await printed('master')
    expect(stdout).toMatch(/^Site lab: 5 machines, 5 right, 2 off\.$/m)
    expect(stdout).toMatch(/^pc2 +lab +on +model 1 +2 ready +\d{4}-/m)
  })
})
