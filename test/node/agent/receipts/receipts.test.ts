import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Machine } from '../../../../node/agent/machine/machine.ts'
import { GONE_MACHINES, RECEIPTS_PER_MACHINE } from '../../../../node/agent/receipts/limits.ts'
import { keepFailure, keepReceipt, lastReceipt } from '../../../../node/agent/receipts/own-receipts.ts'
import { type ListedReceipt, ReceiptArchive } from '../../../../node/agent/receipts/receipt-archive.ts'
import { heardOfReceipt } from '../../../../node/agent/receipts/receipt-floor.ts'
import { ReceiptGatherer } from '../../../../node/agent/receipts/receipt-gatherer.ts'
import { listWentBack } from '../../../../node/agent/receipts/went-back.ts'
import type { Ask } from '../../../../node/operate/ask.ts'
import type { RestoreResult } from '../../../../node/restore/restore-result.ts'
import { StateDirectory } from '../../../../node/state/state-directory.ts'
import { storedDocument } from '../../../../node/state/stored-document.ts'
import { createSite } from '../../../../node/trust/create-site.ts'
import { loadOrCreateMachineKey, type MachineKey } from '../../../../node/trust/machine-key.ts'
import { SiteSigner } from '../../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../../node/trust/trust-store.ts'
import { MAX_RECEIPTS_PER_PAGE } from '../../../../protocol/constants.ts'
import { toHex } from '../../../../protocol/digest.ts'
import { MeshError } from '../../../../protocol/errors.ts'
import { isRecord } from '../../../../protocol/json-shape.ts'
import type { OperateRequest, ReplyOf, SignedReceipt } from '../../../../protocol/operate-messages.ts'
import { publicKeyOf } from '../../../../protocol/peer-id.ts'
import { type Receipt, readReceipt, signReceipt } from '../../../../protocol/receipt.ts'
import { type SignedDocument, signDocument } from '../../../../protocol/signed-document.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const FAILED: Receipt = {
  number: 1,
  machine: 'pc1',
  startedAt: '2026-11-01T22:00:00.000Z',
  ms: 1500,
  image: 'win',
  release: 3,
  root: 'ab'.repeat(32),
  verified: false,
  failure: { code: 'PEERS_UNREACHABLE', message: 'no machine of the site could be reached' },
  result: null,
}

const RESULT: RestoreResult = {
  event: 'receipt',
  verified: true,
  image: 'win',
  release: 3,
  root: 'ab'.repeat(32),
  blocks: { total: 100, dirty: 11, local: 1, zero: 2, staged: 1, copied: 1, fetched: 6, audited: 64 },
  bytes: { read: 1, written: 2, received: 3 },
  peers: Array.from({ length: 70 }, (_, i) => ({
    id: `id${i}`,
    name: `pc${i}`,
    blocks: i,
    bytes: i,
    bad: i === 3 ? 1 : 0,
  })),
  offenders: [
    { id: 'id9', name: 'pc9', wrong: 0, violation: 0, silent: 2, slow: 0, busy: 0 },
    { id: 'id3', name: 'pc3', wrong: 1, violation: 0, silent: 0, slow: 0, busy: 0, reason: 'sent wrong bytes' },
  ],
  log: { source: 'scan', state: 'unknown', reason: 'line\nbreak \u001b[2J', witness: 'none', missed: 7, movedFrom: 2 },
  seconds: 1.2345,
  machine: 'pc1',
  startedAt: '2026-11-01T22:00:00.000Z',
  beyondImage: 512,
}

/** The master of a site of which pc1 is a member, with real keys and state. */
async function master(): Promise<{ machine: Machine; pc1: MachineKey; own: MachineKey }> {
  const directory = await temporaryDirectory()
  const state = await StateDirectory.open(join(directory, 'state'), { create: true })
  onTestFinished(() => state.close())
  const own = await loadOrCreateMachineKey(state.path('identity.pem'))
  const pc1 = await loadOrCreateMachineKey(join(directory, 'pc1.pem'))
  const place = { site: 'lab', group: 'lab', mac: [], added: '2026-01-01T00:00:00.000Z' }
  const [keysDir, trustDir] = [state.path('keys'), state.path('trust')]
  await createSite({ keysDir, trustDir, master: { id: own.id, name: 'master', role: 'master', ...place } })
  const trust = await TrustStore.open(trustDir)
  const signer = await SiteSigner.open({ keysDir, trust })
  await signer.addMember({ id: pc1.id, name: 'pc1', role: 'machine', ...place })
  const siteId = toHex(trust.siteId)
  await state.saveMachine({ site: 'lab', siteId, name: 'master', id: own.id, role: 'master', listen: [] })
  return { machine: await Machine.from(state), pc1, own }
}

const numbered = (number: number, key: MachineKey, over: Partial<Receipt> = {}): SignedReceipt => ({
  number,
  document: signReceipt({ ...FAILED, number, ...over }, key),
})

/** A machine that tells what `page` says, as over the network; what it was asked for is noted. */
function telling(page: (since: number) => ReplyOf<'receipts'> | Promise<ReplyOf<'receipts'>>) {
  const asked: number[] = []
  const ask = (async (peers: readonly string[], request: OperateRequest) => {
    if (request.op !== 'receipts') throw new Error(request.op)
    asked.push(request.since)
    return [{ id: peers[0], reply: await page(request.since) }]
  }) as unknown as Ask
  return { ask, asked }
}

const listed = async (machine: Machine): Promise<ListedReceipt[]> =>
  new ReceiptArchive(machine.state).list((id) => machine.trust.view().memberById(id)?.name)

describe('a signed receipt', () => {
  it('has the golden form and signature', async () => {
    const path = join(import.meta.dirname, '../../../vectors/signed-receipt.json')
    const { signed } = JSON.parse(await readFile(path, 'utf8')) as { signed: SignedDocument[] }
    for (const one of signed) {
      const record = readReceipt(one)
      expect(record).toBeDefined()
      expect(signReceipt(record!, { seed: Buffer.alloc(32, 7), publicKey: publicKeyOf(one.by)! })).toEqual(one)
    }
    expect(signed.map((one) => readReceipt(one)?.verified)).toEqual([true, false, true])
    expect(signed.map((one) => readReceipt(one)?.offenders?.map(({ name, slow }) => [name, slow]))).toEqual([
      undefined,
      undefined,
      [
        ['pc09', 7],
        ['pc08', 3],
      ],
    ])
  })

  it('is no receipt when anything in it was changed, or a known key has a wrong value', async () => {
    const { pc1, own } = await master()
    const good = signReceipt(FAILED, pc1)
    expect(readReceipt(good)).toEqual(FAILED)
    const swap = (from: string, to: string): string => {
      expect(good.text).toContain(from)
      return good.text.replace(from, to)
    }
    for (const bad of [
      { ...good, by: own.id },
      { ...good, text: swap('"verified":false', '"verified":true') },
      signDocument('roll', good.text, pc1),
      signDocument('receipt', swap('"format":1', '"format":0'), pc1),
      signDocument('receipt', swap('"number":1', '"number":1.5'), pc1),
      signDocument('receipt', swap('"release":3', '"release":"3"'), pc1),
      signDocument('receipt', swap('2026-11-01T22:00:00.000Z', 'yesterday'), pc1),
      signDocument('receipt', swap('pc1', '\\u001b[2J'), pc1),
      signDocument('receipt', '{}', pc1),
      signDocument('receipt', 'junk', pc1),
    ])
      expect(readReceipt(bad), bad.text).toBeUndefined()
  })

  it('is kept for each restore and for each failure, with what people and programs may see of it', async () => {
    const { machine, own } = await master()
    expect(await lastReceipt(machine)).toBeUndefined()
    await keepReceipt(machine, RESULT)
    const first = await lastReceipt(machine)
    expect(first).toMatchObject({ number: 1, machine: 'master', verified: true, ms: 1235, failure: null })
    expect(first?.result?.log).toEqual({
      source: 'scan',
      state: 'unknown',
      reason: 'line break  [2J',
      witness: 'none',
      missed: 7,
      movedFrom: 2,
    })
    const { staged, copied, ...counts } = first!.result!.blocks
    expect({ staged, copied, beyondImage: first?.result?.beyondImage }).toEqual({
      staged: 1,
      copied: 1,
      beyondImage: 512,
    })
    expect(staged! + copied! + counts.local + counts.zero + counts.fetched).toBe(counts.dirty)
    expect(first?.result?.peers).toHaveLength(64)
    expect(first?.offenders?.map(({ name }) => name)).toEqual(['pc3', 'pc9'])
    expect(first?.result?.peers.slice(0, 2).map(({ name }) => name)).toEqual(['pc3', 'pc69'])
    const startedAt = Date.parse('2026-11-02T22:00:00.000Z')
    await keepFailure(
      machine,
      { startedAt, ms: 1500, image: 'win' },
      new MeshError('DISK_IO', `the disk failed ${'x'.repeat(2000)}`),
    )
    await keepFailure(machine, { startedAt, ms: 0 }, new Error('boom'))
    const all = await listed(machine)
    expect(all.map(({ number, failure }) => [number, failure?.code])).toEqual([
      [1, undefined],
      [2, 'DISK_IO'],
      [3, 'UNEXPECTED'],
    ])
    expect(all[1]).toMatchObject({ image: 'win', release: null, verified: false, result: null })
    const page = await new ReceiptArchive(machine.state).page(own.id, 1)
    expect(page.receipts.map(({ number }) => number)).toEqual([2, 3])
  })
})

describe('gathering receipts', () => {
  it('takes page after page, only what is new, and keeps no more than so many', async () => {
    const { machine, pc1 } = await master()
    const many = Array.from({ length: RECEIPTS_PER_MACHINE + 30 }, (_, i) => numbered(i + 1, pc1))
    const page = (since: number) => {
      const left = many.filter(({ number }) => number > since)
      return { receipts: left.slice(0, MAX_RECEIPTS_PER_PAGE), more: left.length > MAX_RECEIPTS_PER_PAGE }
    }
    const { ask, asked } = telling(page)
    const gatherer = new ReceiptGatherer({ machine, ask, warn: (text) => expect.fail(text) })
    expect(await gatherer.gather()).toEqual({ event: 'gathered', receipts: many.length, reached: ['pc1'] })
    expect(asked).toEqual([0, 64, 128, 192, 256, 320, 384])
    const numbers = (await listed(machine)).map(({ number }) => number)
    expect(numbers).toEqual(Array.from({ length: RECEIPTS_PER_MACHINE }, (_, i) => i + 31))
    asked.length = 0
    many.push(numbered(many.length + 1, pc1))
    expect(await gatherer.gather()).toMatchObject({ receipts: 1 })
    // The last one is asked for once more.
    expect(asked).toEqual([RECEIPTS_PER_MACHINE + 29])
    // The archive itself passes on in the same pages.
    const first = await new ReceiptArchive(machine.state).page(pc1.id, 0)
    expect(first.more).toBe(true)
    expect(first.receipts.map(({ number }) => number)).toEqual(Array.from({ length: 64 }, (_, i) => i + 32))
  })

  it('drops what a machine has forged, with one warning, and asks it no more', async () => {
    const { machine, pc1, own } = await master()
    const good = numbered(1, pc1)
    const later = numbered(2, pc1)
    for (const forged of [
      { number: 2, document: signReceipt({ ...FAILED, number: 2 }, own) },
      { number: 2, document: { ...later.document, by: own.id } },
      { number: 2, document: { ...later.document, text: later.document.text.replace('1500', '1501') } },
      { number: 3, document: later.document },
    ]) {
      const warnings: string[] = []
      const { ask, asked } = telling(() => ({ receipts: [good, forged], more: true }))
      const gatherer = new ReceiptGatherer({ machine, ask, warn: (text) => void warnings.push(text) })
      for (let round = 0; round < 2; round++) expect((await gatherer.gather()).reached).toEqual([])
      expect(warnings).toHaveLength(1)
      expect(warnings[0]).toMatch(/receipts of pc1 are forged or damaged/)
      expect(asked).toHaveLength(1)
      expect((await listed(machine)).map(({ number }) => number)).toEqual([1])
      const kept = machine.state.shelf('signed-receipts', storedDocument('all', isRecord))
      await kept.changeDurable([], await kept.keys())
    }
  })

  it('leaves what a newer version has signed where it is, and says what to do', async () => {
    const { machine, pc1 } = await master()
    const { text } = numbered(2, pc1).document
    const newer = { number: 2, document: signDocument('receipt', text.replace('"format":1', '"format":2'), pc1) }
    const warnings: string[] = []
    const { ask, asked } = telling(() => ({ receipts: [numbered(1, pc1), newer], more: false }))
    const gatherer = new ReceiptGatherer({ machine, ask, warn: (one) => void warnings.push(one) })
    for (let round = 0; round < 2; round++) expect((await gatherer.gather()).reached).toEqual([])
    expect(asked).toHaveLength(1)
    expect(warnings).toEqual([
      '1 receipts of pc1 are left there: the receipt was written by a newer version of mesh: format 2, this version reads up to 1; update mesh on this machine',
    ])
    expect((await listed(machine)).map(({ number }) => number)).toEqual([1])
  })

  it('does not go round with a machine that never ends, and keeps what machines have told that were removed', async () => {
    const { machine, pc1 } = await master()
    const { ask, asked } = telling((since) => ({ receipts: [numbered(since + 1, pc1)], more: true }))
    const gatherer = new ReceiptGatherer({ machine, ask, warn: (text) => expect.fail(text) })
    expect(await gatherer.gather()).toEqual({ event: 'gathered', receipts: 16, reached: [] })
    expect(asked).toHaveLength(16)
    const signer = await SiteSigner.open({ keysDir: machine.state.path('keys'), trust: machine.trust })
    await signer.removeMember('pc1')
    expect(await gatherer.gather()).toEqual({ event: 'gathered', receipts: 0, reached: [] })
    const left = await listed(machine)
    expect(left).toHaveLength(16)
    expect(left[0]).toMatchObject({ machine: 'pc1', id: pc1.id, gone: true, number: 1 })
  })

  it('forgets machines that were removed, but for those that told of receipts last', async () => {
    const { machine, own } = await master()
    const archive = new ReceiptArchive(machine.state)
    const ids = Array.from({ length: GONE_MACHINES + 2 }, (_, i) => `gone-${String(i).padStart(3, '0')}`)
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    for (const [i, id] of ids.entries()) {
      vi.setSystemTime(Date.parse('2026-11-01T00:00:00.000Z') + i * 1000)
      await archive.add({ id, name: id }, [numbered(1, own), numbered(2, own)])
    }
    await archive.add({ id: own.id, name: 'master' }, [numbered(1, own)])
    await archive.keepOnly(new Set([own.id]))
    const kept = new Set((await listed(machine)).map(({ id }) => id))
    expect(kept).toEqual(new Set([own.id, ...ids.slice(2)]))
  })

  it('lists the receipts of a machine that was renamed under its present name, and says how it was called', async () => {
    const { machine, pc1 } = await master()
    const receipts = [numbered(1, pc1), numbered(2, pc1, { machine: 'pc9' }), numbered(3, pc1, { machine: 'master' })]
    const { ask } = telling(() => ({ receipts, more: false }))
    const signer = await SiteSigner.open({ keysDir: machine.state.path('keys'), trust: machine.trust })
    await signer.addMember({ ...machine.trust.view().memberById(pc1.id)!, name: 'pc9' })
    const gatherer = new ReceiptGatherer({ machine, ask, warn: (text) => expect.fail(text) })
    expect((await gatherer.gather()).reached).toEqual(['pc9'])
    const names = (await listed(machine)).map((one) => [one.machine, one.named])
    // What a machine calls itself is never taken for the name of another member.
    expect(names).toEqual([
      ['pc9', 'pc1'],
      ['pc9', undefined],
      ['pc9', 'master'],
    ])
    await signer.removeMember('pc9')
    expect((await listed(machine)).map((one) => one.machine)).toEqual(['pc9', 'pc9', 'pc9'])
  })

  it.each<[string, (pc1: MachineKey) => SignedReceipt[]]>([
    ['has fewer receipts than it had told', (pc1) => [numbered(1, pc1)]],
    ['has another one in the place of the last', (pc1) => [numbered(1, pc1), numbered(2, pc1, { ms: 77 })]],
    ['has others, and more', (pc1) => [1, 2, 3].map((number) => numbered(number, pc1, { ms: 77 }))],
  ])('says so once if a machine %s, and tells it what is known of it', async (_, now) => {
    const { machine, pc1 } = await master()
    let told = [numbered(1, pc1), numbered(2, pc1)]
    const warnings: string[] = []
    const { ask, asked } = telling((since) => ({ receipts: told.filter(({ number }) => number > since), more: false }))
    const gatherer = new ReceiptGatherer({ machine, ask, warn: (text) => void warnings.push(text) })
    await gatherer.gather()
    await gatherer.gather()
    expect(warnings).toEqual([])
    expect(await listWentBack(machine)).toEqual([])
    told = now(pc1)
    asked.length = 0
    await gatherer.gather()
    await gatherer.gather()
    expect(warnings).toEqual([expect.stringMatching(/the receipts of pc1 went back: .* receipt 2 /)])
    expect(asked.slice(0, 2)).toEqual([1, 2])
    expect(await listWentBack(machine)).toMatchObject([{ machine: 'pc1', number: 2 }])
    // What it had told is kept.
    expect((await listed(machine)).slice(0, 2)).toMatchObject([1, 2].map((number) => ({ ...FAILED, number })))
    // It goes on behind what is known of it.
    told = [...told, numbered(9, pc1)]
    await gatherer.gather()
    expect(warnings).toHaveLength(1)
    expect((await listed(machine)).at(-1)?.number).toBe(9)
    const signer = await SiteSigner.open({ keysDir: machine.state.path('keys'), trust: machine.trust })
    await signer.removeMember('pc1')
    await gatherer.gather()
    expect(await listWentBack(machine)).toEqual([])
  })

  it('is heard of by a machine whose own receipts are older, once, and it counts on behind that', async () => {
    const { machine } = await master()
    await keepReceipt(machine, RESULT)
    const recorded: string[] = []
    const record = async (doubt: string): Promise<void> => void recorded.push(doubt)
    expect(await heardOfReceipt(machine, { number: 1, by: 'office' }, record)).toBe(undefined)
    expect(await heardOfReceipt(machine, { number: 5, by: 'office' }, record)).toMatch(/office has receipt 5 .* of 1:/)
    expect(await heardOfReceipt(machine, { number: 5, by: 'office' }, record)).toBe(undefined)
    expect(recorded).toHaveLength(1)
    await keepReceipt(machine, RESULT)
    expect((await lastReceipt(machine))?.number).toBe(6)
  })
})
