import { existsSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { Machine } from '../../node/agent/machine/machine.ts'
import type { AgentOptions } from '../../node/agent/machine/options.ts'
import { MeshNode } from '../../node/agent/mesh/mesh-node.ts'
import { Operator } from '../../node/agent/operate/operator.ts'
import { OperateClient } from '../../node/operate/operate-client.ts'
import { OPERATE_PROTOCOL } from '../../protocol/constants.ts'
import { EXIT } from '../../protocol/errors.ts'
import type { OperateRequest } from '../../protocol/operate-messages.ts'
import { signRoll } from '../../protocol/roll-document.ts'
import type { SignedDocument } from '../../protocol/signed-document.ts'
import { Lab, type MeshEvent, MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { codeOf } from '../support/error-code.ts'
import { BLOCK, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 16

describe('operating machines from afar', () => {
  const random = new Random(testSeed('operate'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    await startMaster(lab, BLOCKS, random)
  })
  afterEach(() => Promise.all(['pc1', 'office'].map((machine) => lab.stop(machine))))
  afterAll(() => lab.close())

  const invite = async (...args: string[]): Promise<MeshEvent> => lab.ok('master', ['invite', ...args])

  it('enrols operators, who need no disk, and machines, each in its site and group', async () => {
    const invited = await invite('--role', 'operator')
    expect(invited).toMatchObject({ role: 'operator', site: 'lab', group: 'lab' })
    const joined = await lab.ok('office', ['join', String(invited.token), '--name', 'office'])
    expect(joined).toMatchObject({ event: 'joined', name: 'office', role: 'operator', site: 'lab' })
    const room = await invite('--site', 'annex', '--group', 'lab-a', '--uses', '2')
    expect(room).toMatchObject({ role: 'machine', site: 'annex', group: 'lab-a' })
    await writeFile(lab.path('pc1.img'), new Uint8Array(BLOCKS * BLOCK))
    const diskless = await lab.run('pc1', ['join', String(room.token), '--name', 'pc1'])
    expect(diskless.code).toBe(EXIT.usage)
    expect(diskless.result).toMatchObject({ event: 'error', code: 'USAGE' })
    const args = ['join', String(room.token), '--disk', lab.path('pc1.img'), '--name', 'pc1']
    expect(await lab.ok('pc1', args)).toMatchObject({ role: 'machine', site: 'annex', image: 'model', release: 1 })

    const { peers } = (await lab.ok('master', ['peers'])) as unknown as { peers: MeshEvent[] }
    expect(peers.map(({ name, role, site, group }) => [name, role, site, group])).toEqual([
      ['office', 'operator', 'lab', 'lab'],
      ['pc1', 'machine', 'annex', 'lab-a'],
    ])
    for (const { mac } of peers) expect(mac).toBeInstanceOf(Array)
    // Capitals make no other site and no other group.
    expect(await invite('--site', 'ANNEX', '--group', 'Lab-A')).toMatchObject({ site: 'annex', group: 'lab-a' })
    expect(await invite('--site', 'Annex')).toMatchObject({ site: 'annex', group: 'annex' })
    expect(await lab.ok('pc1', ['status'])).toMatchObject({ role: 'machine', site: 'annex', group: 'lab-a' })
    expect(await lab.ok('office', ['status'])).toMatchObject({ role: 'operator', group: 'lab' })
    expect((await lab.run('office', ['seed', lab.path('pc1.img')])).result).toMatchObject({ code: 'STATE_NOT_MASTER' })
    expect((await lab.run('master', ['invite', '--group', '\u001b[2J'])).result).toMatchObject({ code: 'USAGE' })
  })

  /** What this process needs to act as a machine of the lab. */
  const agent = (machine: string, listen = '/ip4/127.0.0.1/tcp/0'): AgentOptions => ({
    stateDir: lab.path(machine),
    listen: [listen],
    mdns: false,
    signal: new AbortController().signal,
    report: () => undefined,
  })
  /** The id of a machine that answers. */
  const idOf = async (operator: Operator, name: string): Promise<string> => {
    for (;;) {
      const id = (await operator.members()).find((member) => member.name === name)?.id
      const [answer] = id === undefined ? [] : await operator.ask([id], { op: 'state' })
      if (answer !== undefined && 'reply' in answer) return answer.id
      await sleep(100)
    }
  }
  const order = { op: 'reset', roll: 'r1', epoch: 1, warningSeconds: 0, evenInUse: false } as const

  it('lets an operator ask, through the command that runs or by a node of its own, and reset', async () => {
    const flags = ['--in-use-check', 'none', '--reset-command', `echo reset >> ${lab.path('reset')}`]
    const pc1 = await lab.serve('pc1', ['up', ...flags])
    const signed: SignedDocument[] = []
    for (const runs of [false, true]) {
      const up = runs ? await lab.serve('office', ['up']) : undefined
      await up?.when(({ event, name }) => event === 'peer' && name === 'pc1')
      const operator = await Operator.open(agent('office'))
      const id = await idOf(operator, 'pc1')
      const [answer] = await operator.ask([id], { op: 'state' })
      expect(answer, runs ? 'through mesh up' : 'by an own node').toMatchObject({
        id,
        reply: { machine: 'pc1', disk: null, newest: 1, inUse: false, reset: { pending: false, failure: null } },
      })
      const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8')
      expect(answer).toMatchObject({ reply: { bootId: bootId.trim() } })
      const roll = { group: 'lab-a', roll: 'r1', epoch: 1, sequence: signed.length, body: {} }
      signed.push(await operator.signRoll(roll))
      const [put] = await operator.ask([id], { op: 'roll-put', document: signed.at(-1)! })
      expect(put).toEqual({ id, reply: { accepted: true, document: signed.at(-1) } })
      expect(operator.readRoll(signed.at(-1)!)).toEqual(roll)
      const [late] = await operator.ask([id], { ...order, roll: 'r0' })
      expect(late).toMatchObject({ id, error: { code: 'ROLL_SUPERSEDED' } })
      const [nobody] = await operator.ask(['12D3KooWGEv4XM1ztGS9C1pX2bgaqHGAXcC3PZe81EsZ8i12LU2e'], { op: 'state' })
      expect(nobody).toMatchObject({ error: { code: 'PEERS_UNREACHABLE' } })
      if (runs) {
        expect(await operator.ask([id], order)).toEqual([{ id, reply: { granted: true } }])
        while (!existsSync(lab.path('reset'))) await sleep(20)
        const [master] = await operator.ask([await idOf(operator, 'master')], { ...order, roll: null })
        expect(master).toMatchObject({ error: { code: 'RESET_DISABLED' } })
      }
      await operator.close()
      await up?.stop()
    }
    await pc1.stop()
    // The roll's document and the command to reset by are kept.
    const again = await lab.serve('pc1', ['up'])
    const operator = await Operator.open(agent('office'))
    const id = await idOf(operator, 'pc1')
    expect(await operator.ask([id], { op: 'roll-get', group: 'lab-a' })).toEqual([
      { id, reply: { document: signed[1] } },
    ])
    await rm(lab.path('reset'), { force: true })
    expect(await operator.ask([id], order)).toEqual([{ id, reply: { granted: true } }])
    while (!existsSync(lab.path('reset'))) await sleep(20)
    await operator.close()
    await again.stop()
  })

  it('gathers the receipts of restores, and of those that failed', async () => {
    const failed = await lab.run('pc1', ['restore', '--image', 'nope'])
    expect(failed.result).toMatchObject({ event: 'error', code: 'IMAGE_UNKNOWN' })
    await lab.ok('pc1', ['restore'])
    const receipts = async (machine: string, ...args: string[]): Promise<MeshEvent[]> =>
      (await lab.ok(machine, ['receipts', ...args])).receipts as unknown as MeshEvent[]
    const both = [
      { machine: 'pc1', number: 1, verified: false, image: 'nope', failure: { code: 'IMAGE_UNKNOWN' }, result: null },
      { machine: 'pc1', number: 2, verified: true, release: 1, failure: null, result: { blocks: { dirty: BLOCKS } } },
    ]
    expect(await receipts('pc1')).toMatchObject(both)
    expect(await lab.ok('pc1', ['status'])).toMatchObject({ lastRestore: { verified: true, release: 1 } })
    expect((await lab.run('pc1', ['receipts', '--now'])).result).toMatchObject({ code: 'NOT_AN_OPERATOR' })

    const up = await lab.serve('pc1', ['up'])
    expect(await receipts('pc1'), 'beside mesh up').toMatchObject(both)
    expect(await receipts('office'), 'before anything was gathered').toEqual([])
    while ((await receipts('office', '--now')).length === 0) await sleep(100)
    expect(await receipts('office', '--machine', 'pc1', '--since', '1d'), 'gathered by an own node').toMatchObject(both)
    expect(await receipts('office', '--machine', 'PC1')).toMatchObject(both)
    await up.stop()

    // By itself, as soon as the machine is back.
    const office = await lab.serve('office', ['up'])
    await lab.ok('pc1', ['restore'])
    const again = await lab.serve('pc1', ['up'])
    while ((await receipts('office')).length < 3) await sleep(100)
    expect((await lab.run('office', ['receipts', '--machine', 'pc11'])).result).toMatchObject({
      code: 'NOT_A_MEMBER',
      message: expect.stringMatching(/did you mean pc1\?/),
    })
    const csv = new MeshProcess(['receipts', '--csv', '--state', lab.path('office')], {}, {})
    const lines = (await csv.exited).stdout.split('\n')
    expect(lines).toHaveLength(5)
    expect(lines[0]).toMatch(/^machine,number,began,/)
    expect(lines[1]).toMatch(/^pc1,1,.*,nope,.*,no,IMAGE_UNKNOWN,/)
    const names = lines[0]!.trim().split(',')
    for (const line of lines.slice(2, 4)) {
      const cells = line.trim().split(',')
      const of = (name: string): number => Number(cells[names.indexOf(name)] || Number.NaN)
      const sources = ['zero', 'local', 'staged', 'copied', 'fetched'].map((source) => of(`blocks ${source}`))
      expect(sources.reduce((sum, count) => sum + count)).toBe(of('blocks restored'))
      expect(of('bytes beyond image')).toBe(0)
      expect(cells[names.indexOf('moved from release')]).toBe('')
    }
    const table = new MeshProcess(['receipts', '--state', lab.path('office')], {}, {})
    expect((await table.exited).stdout).toMatch(
      /^machine .*\npc1 .*NOT verified, .*nope.*\npc1 .*verified\npc1 .*verified\n$/,
    )
    await Promise.all([again.stop(), office.stop()])
  })

  it('does nothing for a lab machine, whatever it sends', async () => {
    const { token } = await invite('--group', 'lab-a')
    await writeFile(lab.path('pc2.img'), new Uint8Array(BLOCKS * BLOCK))
    await lab.ok('pc2', ['join', String(token), '--disk', lab.path('pc2.img'), '--name', 'pc2'])
    expect(await codeOf(Operator.open(agent('pc2')))).toBe('NOT_AN_OPERATOR')
    await rm(lab.path('reset'), { force: true })
    const up = await lab.serve('pc1', ['up'])
    const hostile = await Machine.open(lab.path('pc2'))
    const node = await MeshNode.start({ machine: hostile, ...agent('pc2') })
    const victim = hostile.trust.view().members.find(({ name }) => name === 'pc1')?.id ?? ''
    // It has to hear of the new member first.
    await up.when(({ event, name, up: isUp }) => event === 'peer' && name === 'pc2' && isUp === true)
    const client = new OperateClient({ open: (peerId, protocol) => node.open(peerId, protocol) })
    const document = signRoll({ group: 'lab-a', roll: 'r2', epoch: 9, sequence: 0, body: {} }, await hostile.key())
    const requests: OperateRequest[] = [
      { op: 'state' },
      { op: 'receipts', since: 0 },
      { ...order, evenInUse: true },
      { op: 'roll-get', group: 'lab-a' },
      { op: 'roll-put', document },
    ]
    // Both dial at first, and one of the connections is given up.
    await vi.waitFor(async () => expect(await codeOf(client.ask(victim, requests[0]!))).toBe('NOT_AN_OPERATOR'), {
      timeout: 20_000,
    })
    for (const request of requests) expect(await codeOf(client.ask(victim, request))).toBe('NOT_AN_OPERATOR')
    const stream = await node.open(victim, OPERATE_PROTOCOL)
    await stream.send({ type: 'operate', payload: Buffer.from('{"op":"reset"}') })
    await up.when(({ event, text }) => event === 'warning' && /pc2 broke the protocol/.test(String(text)))
    await sleep(700)
    expect(existsSync(lab.path('reset'))).toBe(false)
    client.close()
    await node.stop()
    await hostile.close()
    await up.stop()
  })
})
