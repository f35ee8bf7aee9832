import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { OperateClient } from '../../../node/operate/operate-client.ts'
import { OperateServer } from '../../../node/operate/operate-server.ts'
import { Resetter, type ResetterOptions } from '../../../node/operate/resetter.ts'
import { RollStore } from '../../../node/operate/roll-store.ts'
import { loadOrCreateMachineKey, type MachineKey } from '../../../node/trust/machine-key.ts'
import {
  MAX_OPERATE_BYTES,
  MAX_OPERATE_REQUESTS_OPEN,
  MAX_ROLL_BYTES,
  REQUEST_DEADLINE_MS,
} from '../../../protocol/constants.ts'
import type { MachineState, OperateRequest } from '../../../protocol/operate-messages.ts'
import { publicKeyOf } from '../../../protocol/peer-id.ts'
import { type RollDocument, readRoll, signRoll } from '../../../protocol/roll-document.ts'
import { isSigned, type SignedDocument, signDocument } from '../../../protocol/signed-document.ts'
import { type FakeStream, streamPair } from '../../fakes/frame-stream-pair.ts'
import { codeOf } from '../../support/error-code.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const STATE: MachineState = {
  machine: 'pc1',
  bootId: 'b',
  startedAt: '2026-11-01T00:00:00.000Z',
  disk: { image: 'win', release: 3, root: '00', whole: true },
  newest: 4,
  staged: null,
  inUse: false,
  reset: { pending: false, failure: null },
  lastReceipt: 7,
}

/** A machine in group lab-a that two operators may command, and what happens to it. */
async function machine(over: Partial<ResetterOptions> = {}) {
  const directory = await temporaryDirectory()
  const keys = await Promise.all(
    ['office', 'second', 'pc2'].map((name) => loadOrCreateMachineKey(`${directory}/${name}.pem`)),
  )
  const [office, second, pupil] = keys as [MachineKey, MachineKey, MachineKey]
  const operators = new Set([office.id, second.id])
  const shelf = new Map<string, SignedDocument>()
  const rolls = new RollStore({
    shelf: { get: async (group) => shelf.get(group), put: async (group, it) => void shelf.set(group, it) },
    mayOperate: (peerId) => operators.has(peerId),
    isGroup: (group) => group === 'lab-a',
  })
  const warnings: string[] = []
  const resetter = new Resetter({
    command: `echo reset >> ${directory}/reset`,
    warnCommand: `cat > ${directory}/warned`,
    inUse: async () => undefined,
    warn: (text) => void warnings.push(text),
    ...over,
  })
  const server = new OperateServer({
    mayOperate: (peerId) => operators.has(peerId),
    group: () => 'lab-a',
    state: async () => STATE,
    newestOf: async () => 7,
    receipts: async () => ({ receipts: [], more: false }),
    rolls,
    resetter,
  })
  const ends: FakeStream[] = []
  /** A client as a peer with this id. */
  const as = (id: string): OperateClient =>
    new OperateClient({
      open: async () => {
        const [client, end] = streamPair(id, 'pc1')
        ends.push(end)
        void server.serve(end).catch((error: Error) => end.abort(error))
        return client
      },
    })
  return { directory, office, second, pupil, operators, rolls, resetter, warnings, as, ends, shelf }
}

const reset = (over: Partial<Extract<OperateRequest, { op: 'reset' }>> = {}) =>
  ({ op: 'reset', roll: null, epoch: 0, warningSeconds: 0, evenInUse: false, ...over }) as const

const roll = (over: Partial<RollDocument> = {}): RollDocument => ({
  group: 'lab-a',
  roll: 'r1',
  epoch: 1,
  sequence: 1,
  body: { waves: [['pc1']] },
  ...over,
})

async function fileAppears(path: string): Promise<string> {
  while (!existsSync(path)) await sleep(10)
  return readFile(path, 'utf8')
}

describe('a machine that operators ask', () => {
  it('tells its state, over one stream, to as many questions as come', async () => {
    const { as, office, ends } = await machine()
    const client = as(office.id)
    const replies = await Promise.all(Array.from({ length: 8 }, () => client.ask('pc1', { op: 'state' })))
    expect(replies).toEqual(Array(8).fill(STATE))
    expect(ends).toHaveLength(1)
    expect(await client.ask('pc1', { op: 'receipts', since: 0 })).toEqual({ receipts: [], more: false })
  })

  it('tells any member what is known of its own receipts, and nothing of others', async () => {
    const { as, pupil } = await machine()
    expect(await as(pupil.id).ask('pc1', { op: 'seen' })).toEqual({ number: 7 })
  })

  it('refuses whoever is no operator, also one that was until now', async () => {
    const { as, office, pupil, operators, directory } = await machine()
    const document = signRoll(roll(), office)
    const requests: OperateRequest[] = [
      { op: 'state' },
      { op: 'receipts', since: 0 },
      reset(),
      { op: 'roll-get', group: 'lab-a' },
      { op: 'roll-put', document },
    ]
    for (const request of requests) expect(await codeOf(as(pupil.id).ask('pc1', request))).toBe('NOT_AN_OPERATOR')
    const client = as(office.id)
    await client.ask('pc1', { op: 'state' })
    operators.delete(office.id)
    for (const request of requests) expect(await codeOf(client.ask('pc1', request))).toBe('NOT_AN_OPERATOR')
    await sleep(700)
    expect(existsSync(`${directory}/reset`)).toBe(false)
  })

  it('ends the stream of whoever sends anything but a request', async () => {
    const { as, office, ends } = await machine()
    const valid = { op: 'reset', roll: null, epoch: 0, warningSeconds: 0, evenInUse: true }
    const payloads = [
      '',
      'junk',
      'null',
      '[]',
      '{"op":"boot"}',
      '{"op":"constructor"}',
      ...[{ epoch: -1 }, { epoch: 1.5 }, { epoch: '1' }, { roll: 7 }, { evenInUse: 1 }, { warningSeconds: 1e9 }].map(
        (wrong) => JSON.stringify({ ...valid, ...wrong }),
      ),
      JSON.stringify({ op: 'roll-get', group: 'x'.repeat(5000) }),
      JSON.stringify({ op: 'roll-get', group: '\u001b[2J' }),
      JSON.stringify({ op: 'roll-put', document: { by: 'x', text: 'y', signature: 'z' } }),
      `{"op":"state"}${' '.repeat(MAX_OPERATE_BYTES)}`,
      '['.repeat(100_000),
    ]
    for (const payload of payloads) {
      const client = as(office.id)
      await client.ask('pc1', { op: 'state' })
      const end = ends.at(-1)!
      await end.other?.send({ type: 'operate', payload: Buffer.from(payload) })
      expect(await codeOf(client.ask('pc1', { op: 'state' })), payload.slice(0, 80)).toBe('PEERS_UNREACHABLE')
    }
    const client = as(office.id)
    await client.ask('pc1', { op: 'state' })
    await ends.at(-1)?.other?.send({ type: 'file-request', name: 'timestamp.json' })
    expect(await codeOf(client.ask('pc1', { op: 'state' }))).toBe('PEERS_UNREACHABLE')
  })

  it('is given up when it does not answer in time, or is gone, and asked anew over another stream', async () => {
    const { as, office, ends } = await machine()
    const client = as(office.id)
    await client.ask('pc1', { op: 'state' })
    ends[0]!.muted = true
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const outcomes = Promise.all([client.ask('pc1', { op: 'state' }), client.ask('pc1', { op: 'state' })].map(codeOf))
    vi.advanceTimersByTime(REQUEST_DEADLINE_MS)
    expect(await outcomes).toEqual(['REQUEST_TIMEOUT', 'REQUEST_TIMEOUT'])
    vi.useRealTimers()
    expect(await client.ask('pc1', { op: 'state' })).toEqual(STATE)
    ends[1]!.abort(new Error('the machine went down'))
    client.left('pc1')
    expect(await client.ask('pc1', { op: 'state' })).toEqual(STATE)
    expect(ends).toHaveLength(3)
    client.close()
    expect(await codeOf(client.ask('pc1', { op: 'state' }))).toBe('PEERS_UNREACHABLE')
  })

  it('answers so many requests at a time and no more', async () => {
    const { as, office } = await machine()
    const client = as(office.id)
    const most = MAX_OPERATE_REQUESTS_OPEN
    const outcomes = await Promise.all(
      Array.from({ length: most + 1 }, () => codeOf(client.ask('pc1', { op: 'state' }))),
    )
    expect(outcomes).toEqual([...Array<string>(most).fill('OK'), 'REQUEST_TIMEOUT'])
  })

  it('is not believed when it answers anything else', async () => {
    for (const payload of ['{}', '{"ok":{}}', `{"ok":${JSON.stringify({ ...STATE, machine: '\u001b[2J' })}}`, 'x']) {
      const client = new OperateClient({
        open: async () => {
          const [client, end] = streamPair('me', 'pc1')
          void end.send({ type: 'operate', payload: Buffer.from(payload) })
          return client
        },
      })
      expect(await codeOf(client.ask('pc1', { op: 'state' })), payload).toBe('PROTOCOL_VIOLATION')
    }
  })
})

describe('the document of a roll', () => {
  it('is replaced only by a newer one, and whoever comes too late gets the newer one', async () => {
    const { as, office, second } = await machine()
    const client = as(office.id)
    const put = (document: SignedDocument) => client.ask('pc1', { op: 'roll-put', document })
    expect(await client.ask('pc1', { op: 'roll-get', group: 'lab-a' })).toEqual({ document: null })
    const first = signRoll(roll({ sequence: 5 }), office)
    expect(await put(first)).toEqual({ accepted: true, document: first })
    expect(await put(first)).toEqual({ accepted: true, document: first })
    for (const late of [{ sequence: 4 }, { sequence: 5, body: 'other' }, { epoch: 0, sequence: 99 }])
      expect(await put(signRoll(roll(late), second)), JSON.stringify(late)).toEqual({
        accepted: false,
        document: first,
      })
    const takenOver = signRoll(roll({ epoch: 2, sequence: 0 }), second)
    const both = await Promise.all([put(takenOver), put(signRoll(roll({ sequence: 6 }), office))])
    expect(both).toEqual([
      { accepted: true, document: takenOver },
      { accepted: false, document: takenOver },
    ])
    expect(await client.ask('pc1', { op: 'roll-get', group: 'lab-a' })).toEqual({ document: takenOver })
  })

  it('is taken from operators only, whoever brings it, and no longer counts when its signer is none any more', async () => {
    const { as, office, second, pupil, operators } = await machine()
    const client = as(office.id)
    const put = (document: SignedDocument) => client.ask('pc1', { op: 'roll-put', document })
    expect(await codeOf(put(signRoll(roll({ epoch: 9 }), pupil)))).toBe('NOT_AN_OPERATOR')
    const last = signRoll(roll({ epoch: Number.MAX_SAFE_INTEGER }), second)
    expect(await put(last)).toMatchObject({ accepted: true })
    operators.delete(second.id)
    expect(await client.ask('pc1', { op: 'roll-get', group: 'lab-a' })).toEqual({ document: null })
    expect(await put(signRoll(roll(), office))).toMatchObject({ accepted: true })
  })

  it('has the golden signature', async () => {
    const path = join(import.meta.dirname, '../../vectors/signed-roll.json')
    const { signed } = JSON.parse(await readFile(path, 'utf8')) as { signed: SignedDocument }
    const document = readRoll(signed)
    expect(document).toEqual({ group: 'lab-a', roll: 'r1', epoch: 2, sequence: 3, body: { waves: [] } })
    const publicKey = publicKeyOf(signed.by)!
    expect(signRoll(document!, { seed: Buffer.alloc(32, 7), publicKey })).toEqual(signed)
  })

  it('is refused when it is forged, changed, too long or of no group', async () => {
    const { as, office, second, shelf } = await machine()
    const good = signRoll(roll(), office)
    const text = good.text.replace('"epoch":1', '"epoch":2')
    expect(text).not.toBe(good.text)
    const long = JSON.stringify({ ...roll(), body: 'x'.repeat(MAX_ROLL_BYTES) })
    for (const document of [
      { ...good, text },
      { ...good, by: second.id },
      { ...good, by: 'nobody' },
      { ...good, signature: '' },
      signDocument('receipt', good.text, office),
      signDocument('roll', '{"group":"lab-a"}', office),
      signRoll(roll({ group: 'lab-z' }), office),
    ])
      expect(await codeOf(as(office.id).ask('pc1', { op: 'roll-put', document }))).toMatch(
        /PEERS_UNREACHABLE|PROTOCOL_VIOLATION/,
      )
    expect(readRoll(signDocument('roll', long, office))).toBeUndefined()
    expect(() => signRoll(roll({ body: 'x'.repeat(MAX_ROLL_BYTES) }), office)).toThrow(/not valid/)
    expect(shelf.size).toBe(0)
    expect(isSigned('roll', good)).toBe(true)
  })
})

describe('a reset from afar', () => {
  it('is answered first, then happens once', async () => {
    const { as, office, directory, resetter } = await machine()
    const client = as(office.id)
    const answers = await Promise.all([client.ask('pc1', reset()), client.ask('pc1', reset())])
    expect(answers).toEqual([{ granted: true }, { granted: true }])
    expect(existsSync(`${directory}/reset`)).toBe(false)
    expect(resetter.state).toEqual({ pending: true, failure: null })
    expect(await fileAppears(`${directory}/reset`)).toBe('reset\n')
    while (resetter.state.pending) await sleep(10)
    expect(await readFile(`${directory}/reset`, 'utf8')).toBe('reset\n')
  })

  it('spares whoever uses the machine, unless it is to happen even so, after a warning', async () => {
    const { as, office, directory } = await machine({ inUse: async () => 'somebody uses the machine' })
    const client = as(office.id)
    expect(await codeOf(client.ask('pc1', reset({ warningSeconds: 1 })))).toBe('MACHINE_IN_USE')
    expect(existsSync(`${directory}/warned`)).toBe(false)
    const asked = performance.now()
    expect(await client.ask('pc1', reset({ warningSeconds: 1, evenInUse: true }))).toEqual({ granted: true })
    while (!existsSync(`${directory}/warned`) || (await readFile(`${directory}/warned`, 'utf8')) === '') await sleep(10)
    expect(await readFile(`${directory}/warned`, 'utf8')).toBe(
      'This machine is reset in 1 seconds. Save your work now.\n',
    )
    await fileAppears(`${directory}/reset`)
    expect(performance.now() - asked).toBeGreaterThan(990)
  })

  it('is called off when somebody logs in before it happens', async () => {
    let looks = 0
    const { as, office, directory, resetter, warnings } = await machine({
      inUse: async () => (looks++ === 0 ? undefined : 'somebody uses the machine'),
    })
    expect(await as(office.id).ask('pc1', reset())).toEqual({ granted: true })
    while (resetter.state.pending) await sleep(10)
    expect(resetter.state.failure).toBe('somebody uses the machine')
    expect(existsSync(`${directory}/reset`)).toBe(false)
    expect(warnings).toEqual(['the machine was not reset: somebody uses the machine'])
  })

  it('is called off by a higher epoch while somebody is warned', async () => {
    const { as, office, second, directory, resetter } = await machine({ inUse: async () => 'somebody uses it' })
    const client = as(office.id)
    await client.ask('pc1', { op: 'roll-put', document: signRoll(roll(), office) })
    const order = reset({ roll: 'r1', epoch: 1, warningSeconds: 1, evenInUse: true })
    expect(await client.ask('pc1', order)).toEqual({ granted: true })
    await client.ask('pc1', { op: 'roll-put', document: signRoll(roll({ epoch: 2 }), second) })
    while (resetter.state.pending) await sleep(10)
    expect(resetter.state.failure).toMatch(/at roll r1, epoch 2/)
    expect(existsSync(`${directory}/reset`)).toBe(false)
  })

  it('says afterwards that its command failed', async () => {
    const { as, office, resetter } = await machine({ command: 'exit 3' })
    await as(office.id).ask('pc1', reset())
    while (resetter.state.pending) await sleep(10)
    expect(resetter.state.failure).toBe('exit 3 ended with 3')
  })

  it('is refused where no command is set, and in the name of a roll that was overtaken', async () => {
    const none = await machine({ command: '' })
    expect(await codeOf(none.as(none.office.id).ask('pc1', reset()))).toBe('RESET_DISABLED')
    const { as, office, rolls, directory } = await machine()
    const client = as(office.id)
    await rolls.put(signRoll(roll({ epoch: 2 }), office))
    for (const old of [
      { roll: 'r1', epoch: 1 },
      { roll: 'r0', epoch: 2 },
      { roll: 'r0', epoch: 3 },
    ])
      expect(await codeOf(client.ask('pc1', reset(old))), JSON.stringify(old)).toBe('ROLL_SUPERSEDED')
    await sleep(700)
    expect(existsSync(`${directory}/reset`)).toBe(false)
    expect(await client.ask('pc1', reset({ roll: 'r1', epoch: 2 }))).toEqual({ granted: true })
    await fileAppears(`${directory}/reset`)
  })

  it('does not happen when the program is stopped before', async () => {
    const { as, office, directory, resetter } = await machine()
    await as(office.id).ask('pc1', reset())
    resetter.stop()
    await sleep(700)
    expect(existsSync(`${directory}/reset`)).toBe(false)
  })
})
