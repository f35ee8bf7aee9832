import { copyFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Peers } from '../../node/agent/answer/status.ts'
import type { RollResult } from '../../node/agent/roll/roll-machines.ts'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent, type MeshProcess, type Outcome } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { ResettingRoom } from '../../tools/lab/resetting-room.ts'
import { dirty, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 32
const MACHINES = ['pc1', 'pc2', 'pc3', 'pc4']
const GROUP = ['--group', 'lab-a']
const HOLDERS = 2
const POLL = { timeout: 120_000, interval: 500 }

const rollOf = ({ result }: Outcome): RollResult => result as unknown as RollResult
const leastOf = (events: readonly MeshEvent[]): number[] =>
  events.flatMap(({ event, least }) => (event === 'holders' ? [Number(least)] : []))

describe('a roll', () => {
  const random = new Random(testSeed('roll'))
  let lab: Lab
  let room: ResettingRoom
  const lost = new Set(['pc2'])

  beforeAll(async () => {
    lab = await Lab.open()
    await startMaster(lab, BLOCKS, random)
    const join = async (role: string, uses: number, machines: readonly string[], ...args: string[]): Promise<void> => {
      const invited = await lab.ok('master', ['invite', '--role', role, '--uses', String(uses), ...args])
      for (const machine of machines) {
        const disk = role === 'machine' ? ['--disk', lab.path(`${machine}.img`)] : []
        if (role === 'machine') await copyFile(lab.path('model.img'), lab.path(`${machine}.img`))
        await lab.ok(machine, ['join', String(invited.token), '--name', machine, ...disk])
        if (role === 'machine') await lab.ok(machine, ['restore'])
      }
    }
    await join('machine', MACHINES.length, MACHINES, ...GROUP)
    await join('operator', 2, ['office', 'second'])
    const session = (machine: string): Promise<void> => dirty(lab.path(`${machine}.img`), [3, 17], random)
    room = new ResettingRoom(lab, MACHINES, { session, lost })
    await writeFile(room.userFile('pc3'), 'pupil tty7\n')
    await room.open()
    await lab.serve('second', ['up'])
    // On a busy machine the connections take longer than a command waits for them.
    for (const operator of ['second', 'master'])
      await vi.waitFor(async () => expect(await connectedTo(operator)).toEqual(MACHINES), POLL)
  })
  afterAll(async () => {
    await room.close()
    await lab.close()
  })

  /** The machines that the running command of an operator is connected to. */
  async function connectedTo(operator: string): Promise<string[]> {
    const { peers } = (await lab.ok(operator, ['peers'])) as unknown as Peers
    return peers.flatMap(({ name, role, connected }) => (connected && role === 'machine' ? [name] : [])).toSorted()
  }

  const roll = (machine: string, ...args: string[]): Promise<MeshProcess> =>
    lab.start(machine, ['roll', ...args, ...GROUP])
  const rolled = async (machine: string, ...args: string[]): Promise<Outcome> => (await roll(machine, ...args)).exited
  /** Two hours from now, for an hour: nothing goes down. */
  const later = (): string => {
    const hour = new Date().getHours()
    return `${(hour + 2) % 24}:00-${(hour + 3) % 24}:00`
  }

  it('is planned, by operators only, for a group that exists', async () => {
    const planned = await rolled('second', 'plan', '--wave', '2')
    expect(planned.code, planned.stderr).toBe(EXIT.ok)
    expect(planned.result).toMatchObject({
      event: 'roll-plan',
      image: 'model',
      release: 1,
      waves: [['pc1', 'pc2'], ['pc4']],
      rest: [{ machine: 'pc3', why: 'is in use' }],
    })
    // The master counts itself.
    expect((await rolled('master', 'plan', '--wave', '2')).result).toEqual(planned.result)
    const capitals = await lab.run('second', ['roll', 'plan', '--group', 'LAB-A', '--wave', '2'])
    expect(capitals.result).toEqual(planned.result)
    const needed = await rolled('second', 'plan', '--holders', '5')
    expect(needed.result).toMatchObject({ waves: [] })
    expect(JSON.stringify(needed.result)).toMatch(/pc1.{0,20}is needed: block 0 would be on 4 running machines/)
    const nobody = await lab.run('second', ['roll', 'plan', '--group', 'lab-b'])
    expect(nobody.result).toMatchObject({ code: 'GROUP_UNKNOWN' })
    expect((await rolled('second', 'status')).result).toMatchObject({ code: 'ROLL_UNKNOWN' })
    expect((await rolled('second', 'start', '--window', 'at night')).result).toMatchObject({ code: 'USAGE' })
  })

  it('goes on after its operator was killed, leaves alone who is in use, fails who does not come back, and reports', async () => {
    const args = [
      '--wave',
      '2',
      '--holders',
      String(HOLDERS),
      '--stop-after',
      '2',
      '--timeout',
      '45s',
      '--patience',
      '5s',
    ]
    const first = await roll('office', 'start', ...args)
    const down = await first.when(({ event, turn }) => event === 'turn' && turn === 'down')
    expect(down, (await Promise.race([first.exited, undefined]))?.stderr).toBeDefined()
    expect((await first.stop('SIGKILL')).signal).toBe('SIGKILL')

    const taken = await rolled('second', 'start')
    expect(taken.result).toMatchObject({ code: 'ROLL_TAKEN' })
    expect(rollOf(await rolled('second', 'status'))).toMatchObject({
      roll: { state: 'running', operatorName: 'office' },
    })

    const last = await rolled('office', 'start', ...args)
    expect(last.code, last.stderr).toBe(EXIT.missing)
    const { roll: ended, report } = rollOf(last)
    expect(ended).toMatchObject({ state: 'done', epoch: 2, attended: false })
    expect(report).toMatchObject({ verified: 2, failed: 1, skipped: 1, missing: ['pc2'] })
    const rows = new Map(report!.rows.map((row) => [row.machine, row]))
    expect(rows.get('pc2')).toMatchObject({ turn: 'failed', why: 'did not come back within 0.8 min' })
    expect(rows.get('pc2')).not.toHaveProperty('blocks')
    expect(rows.get('pc3')).toMatchObject({ turn: 'skipped', why: 'is in use' })
    for (const machine of ['pc1', 'pc4']) {
      const row = rows.get(machine)!
      expect(row).toMatchObject({ turn: 'verified', verified: true, release: 1, blocks: 2 })
      expect(row.missed).toBeUndefined()
      expect(row.from!.reduce((sum, { blocks }) => sum + blocks, 0)).toBe(2)
    }
    // Each once, whoever told it.
    expect(room.resets.toSorted()).toEqual(['pc1', 'pc2', 'pc4'])
    const least = [...leastOf(first.events), ...leastOf(last.events)]
    expect(least.length).toBeGreaterThan(1)
    expect(Math.min(...least)).toBeGreaterThanOrEqual(HOLDERS)

    const status = rollOf(await rolled('second', 'status'))
    expect(status.report).toEqual(report)
    const text = await lab.run('office', ['roll', 'status', ...GROUP])
    expect(rollOf(text).report).toEqual(report)
  })

  it('is paused, taken over and aborted by others, and who was overtaken is refused', async () => {
    const waits = await roll('office', 'start', '--window', later())
    await waits.event('roll')
    const paused = await rolled('second', 'pause')
    expect(rollOf(paused)).toMatchObject({ heard: true, roll: { state: 'paused', why: 'by second' } })
    expect((await rolled('second', 'start')).result).toMatchObject({ code: 'ROLL_TAKEN' })
    const over = await roll('second', 'resume', '--take-over')
    const overtaken = await waits.exited
    expect(overtaken.result).toMatchObject({ code: 'ROLL_SUPERSEDED' })
    expect(overtaken.code).toBe(EXIT.trust)
    await over.event('roll')
    const aborted = await rolled('office', 'abort')
    expect(rollOf(aborted).heard, aborted.stderr).toBe(true)
    const ended = await over.exited
    expect(rollOf(ended)).toMatchObject({ roll: { state: 'aborted', operatorName: 'second', epoch: 4 } })
    expect(ended.code).toBe(EXIT.unavailable)
    expect(room.resets).toHaveLength(3)
    expect((await rolled('office', 'resume')).result).toMatchObject({ code: 'ROLL_UNKNOWN' })
  })
})
