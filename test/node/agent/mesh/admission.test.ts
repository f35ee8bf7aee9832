import { describe, expect, it } from 'vitest'
import { Admission, candidateOf } from '../../../../node/agent/mesh/admission.ts'
import { type Approval, ApprovalBook, type ApprovalKey } from '../../../../node/trust/approvals.ts'
import { type Removal, RemovalBook } from '../../../../node/trust/removals.ts'
import type { MachineFacts } from '../../../../protocol/enrol-messages.ts'
import { keyCode } from '../../../../protocol/key-code.ts'
import { codeOf } from '../../../support/error-code.ts'
import { factsOf } from '../../../support/machine-facts.ts'
import { makeSite } from '../../../support/site.ts'
import { useTempDir } from '../../../support/temp-dir.ts'

const OTHER_CARD = { mac: ['02:00:5e:10:00:02'] }

describe('Admission', () => {
  const dir = useTempDir()
  let n = 0

  async function master() {
    const { trust, signer } = await makeSite(dir(`site-${n++}`))
    const kept = new Map<string, Approval>()
    const approvals = await ApprovalBook.load({
      iterator: async function* () {
        yield* kept
      },
      changeDurable: async (puts, dels) => {
        for (const key of dels) kept.delete(key)
        for (const [key, value] of puts) kept.set(key, value)
      },
    })
    const removedShelf = new Map<string, Removal>()
    const removals = await RemovalBook.load(
      {
        iterator: async function* () {
          yield* removedShelf
        },
        changeDurable: async (puts) => {
          for (const [key, value] of puts) removedShelf.set(key, value)
        },
      },
      trust,
    )
    const connected = new Set<string>()
    const admission = new Admission({
      ...{ trust, signer, approvals, removals, master: 'id-master', site: 'lab', mayEnrol: () => undefined },
      voucher: () => ({ seed: Buffer.alloc(32, 1), publicKey: Buffer.alloc(32, 1) }),
      isConnected: (id) => connected.has(id),
      joined: () => undefined,
    })
    const ask = (id: string, facts: MachineFacts, enrol = true) =>
      admission.answer(id, { type: 'enrol-request', siteId: trust.siteId, facts, enrol }, '10.0.0.1')
    const approve = (key: ApprovalKey, over: Partial<Approval> = {}) => {
      const at = Date.now()
      return approvals.put([[key, { decision: 'approve', at, expiresAt: at + 60_000, ...over }]])
    }
    const names = () => trust.view().members.map(({ name }) => name)
    return { admission, trust, ask, approve, connected, kept, names, removals, removedShelf }
  }

  it('enrols whom a key, a network card or everybody was approved for, and only when it is asked to', async () => {
    const { ask, approve, names, kept, trust } = await master()
    expect(await ask('a', factsOf('pc1'))).toMatchObject({ state: 'waiting' })
    await approve('id:a', { name: 'pc01', site: 'lab', group: 'lab-a', wipe: true })
    const asked = { name: 'pc01', site: 'lab', group: 'lab-a', wipe: true }
    expect(await ask('a', factsOf('pc1'), false)).toMatchObject({ state: 'approved', ...asked })
    expect(names()).toEqual(['master'])
    expect(await ask('a', factsOf('pc1'))).toMatchObject({ state: 'enrolled', ...asked })
    // The answer was lost.
    expect(await ask('a', factsOf('pc1'))).toMatchObject({ state: 'enrolled', ...asked })
    // Its disk was exchanged meanwhile, and nobody has said that this one may be wiped.
    await approve('id:a')
    const other = factsOf('pc1', { holds: 'ext4' })
    expect(await ask('a', other)).toMatchObject({ state: 'waiting', why: expect.stringMatching(/of pc01 holds ext4/) })
    await approve('id:a', { wipe: true })
    expect(await ask('a', other)).toMatchObject({ state: 'enrolled', ...asked })
    await approve('mac:02:00:5e:10:00:02', { name: 'pc02' })
    expect(await ask('b', factsOf('x', { ...OTHER_CARD, serial: '' }))).toMatchObject({
      state: 'enrolled',
      name: 'pc02',
    })
    expect([...kept.keys()]).toEqual(['id:a', 'id:b'])
    await approve('all')
    const third = factsOf('pc03', { mac: ['02:00:5e:10:00:03'], serial: 'S3' })
    expect(await ask('c', third)).toMatchObject({ state: 'enrolled', name: 'pc03', group: 'lab', wipe: false })
    expect(names()).toEqual(['master', 'pc01', 'pc02', 'pc03'])
    expect(trust.view().memberById('c')).toMatchObject({ serial: 'S3', role: 'machine' })
  })

  it('lets a machine come back under its name, by its card or its serial number, and takes its old key out', async () => {
    const { ask, approve, names, trust, connected, removals, removedShelf } = await master()
    await approve('id:a')
    await ask('a', factsOf('pc1'))
    await approve('id:b')
    connected.add('a')
    expect(await ask('b', factsOf('new'))).toMatchObject({
      state: 'waiting',
      why: expect.stringMatching(/new has a network card of pc1, which is connected/),
    })
    connected.clear()
    // It was approved before anybody knew whose key goes out.
    expect(await ask('b', factsOf('new'))).toMatchObject({
      state: 'waiting',
      why: expect.stringMatching(/by its name/),
    })
    await approve('id:b', { replaces: 'a' })
    expect(await ask('b', factsOf('new'))).toMatchObject({ state: 'enrolled', name: 'pc1' })
    expect([names(), trust.view().removed]).toMatchObject([['master', 'pc1'], [{ id: 'a', name: 'pc1' }]])
    // What lets all in lets nobody take the place of another.
    await approve('all')
    expect(await ask('c', factsOf('new'))).toMatchObject({
      state: 'waiting',
      why: expect.stringMatching(/by its name/),
    })
    await approve('id:c', { replaces: 'b' })
    expect(await ask('c', factsOf('new', OTHER_CARD))).toMatchObject({ state: 'enrolled', name: 'pc1' })
    expect(trust.view().removed.map(({ id }) => id)).toEqual(['a', 'b'])
    // The keys that went out stay out, whatever is approved.
    await approve('id:b')
    const ninth = factsOf('pc9', { mac: ['02:00:5e:10:00:09'], serial: 'S9' })
    expect(await codeOf(ask('b', ninth))).toBe('MEMBER_REMOVED')
    await removals.note()
    expect([...removedShelf.keys()]).toEqual(['a', 'b'])
  })

  it('takes two computers for two that share the network card of an adapter, and no name from another', async () => {
    const { ask, approve, names } = await master()
    await approve('all')
    await ask('a', factsOf('pc1', { serial: 'S1' }))
    expect(await ask('b', factsOf('pc2', { serial: 'S2' }))).toMatchObject({ state: 'enrolled', name: 'pc2' })
    expect(await ask('c', factsOf('PC1', { ...OTHER_CARD, serial: 'S3' }))).toMatchObject({
      state: 'waiting',
      why: expect.stringMatching(/named pc1 is already a member/),
    })
    await approve('id:c', { name: 'master' })
    expect(await ask('c', factsOf('x', { ...OTHER_CARD, serial: 'S3' }))).toMatchObject({ state: 'waiting' })
    expect(names()).toEqual(['master', 'pc1', 'pc2'])
  })

  it('names one machine by its code where two have one name, and refuses strange facts and another site', async () => {
    const { ask, admission } = await master()
    await ask('a', factsOf('pc1', { serial: 'S1' }))
    await ask('b', factsOf('PC1', { serial: 'S2' }))
    const candidates = admission.candidates()
    expect(await codeOf(() => candidateOf(candidates, { name: 'pc1' }))).toBe('USAGE')
    expect(await codeOf(() => candidateOf(candidates, { name: 'pc2' }))).toBe('NOBODY_WAITS')
    expect(candidateOf(candidates, { code: keyCode('b') }).id).toBe('b')
    expect(await codeOf(ask('c', factsOf('no name')))).toBe('PROTOCOL_VIOLATION')
    expect(await codeOf(ask('c', factsOf('pc3', { mac: ['x'] })))).toBe('PROTOCOL_VIOLATION')
    const request = { type: 'enrol-request', siteId: Buffer.alloc(32) } as const
    expect(await codeOf(admission.answer('c', request, ''))).toBe('TOKEN_OTHER_SITE')
  })
})
