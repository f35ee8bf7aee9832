import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Invitation, InvitationBook, type InvitationShelf } from '../../../node/trust/invitations.ts'
import { loadOrCreateMachineKey } from '../../../node/trust/machine-key.ts'
import { decodeMembers, encodeMembers, type Member } from '../../../node/trust/members.ts'
import { peerIdOf, publicKeyOf } from '../../../protocol/peer-id.ts'
import { codeOf } from '../../support/error-code.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const VECTORS = join(import.meta.dirname, '../../vectors')

function shelf(): InvitationShelf {
  const map = new Map<string, Invitation>()
  return {
    get: async (key) => map.get(key),
    putDurable: async (key, value) => void map.set(key, value),
    del: async (key) => void map.delete(key),
    iterator: async function* () {
      yield* map
    },
  }
}

describe('InvitationBook', () => {
  it('lets as many machines in as it says, for as long as it says', async () => {
    let now = 1000
    const store = shelf()
    const book = await InvitationBook.load(store, { now: () => now })
    const { secret, expiresAt } = await book.open({ ttlMs: 500, uses: 2 })
    expect(expiresAt).toBe(1500)
    await book.redeem(secret, 'a')
    await book.redeem(secret, 'a')
    await book.redeem(secret, 'b')
    expect(await codeOf(book.redeem(secret, 'c'))).toBe('TOKEN_USED_UP')
    await book.redeem(secret, 'b')
    expect(await codeOf(book.redeem(Buffer.alloc(16), 'a'))).toBe('TOKEN_UNKNOWN')
    now = 1500
    expect(await codeOf(book.redeem(secret, 'a'))).toBe('TOKEN_EXPIRED')
    // Remembered over a restart, and forgotten in the end.
    expect(await codeOf((await InvitationBook.load(store, { now: () => now })).redeem(secret, 'a'))).toBe(
      'TOKEN_EXPIRED',
    )
    now += 30 * 24 * 3600 * 1000
    expect(await codeOf((await InvitationBook.load(store, { now: () => now })).redeem(secret, 'a'))).toBe(
      'TOKEN_UNKNOWN',
    )
  })

  it('gives the last use to one of two that come at the same time', async () => {
    const book = await InvitationBook.load(shelf())
    const { secret } = await book.open({ ttlMs: 1000, uses: 1 })
    const outcomes = await Promise.all(['a', 'b'].map((peer) => codeOf(book.redeem(secret, peer))))
    expect(outcomes).toEqual(['OK', 'TOKEN_USED_UP'])
  })

  it('is asked whether it lets somebody in, which uses up nothing', async () => {
    const book = await InvitationBook.load(shelf(), { now: () => 1000 })
    const { secret } = await book.open({ ttlMs: 1000, uses: 1 })
    for (let times = 0; times < 3; times++) await book.check(secret, 'a')
    await book.redeem(secret, 'b')
    expect(await codeOf(book.check(secret, 'a'))).toBe('TOKEN_USED_UP')
    await book.check(secret, 'b')
    expect(await codeOf(book.check(Buffer.alloc(16), 'a'))).toBe('TOKEN_UNKNOWN')
  })

  it('is taken back, also for whoever has used it, and says so after a restart', async () => {
    let now = 1000
    const store = shelf()
    const book = await InvitationBook.load(store, { now: () => now })
    const [first, second] = [await book.open({ ttlMs: 500, uses: 2 }), await book.open({ ttlMs: 500, uses: 1 })]
    await book.redeem(first.secret, 'a')
    await book.redeem(second.secret, 'b')
    const [id] = (await book.all()).flatMap((one) => (one.state === 'open' ? [one.id] : []))
    await book.revoke(id!)
    await book.revoke('nothing')
    expect(await codeOf(book.redeem(first.secret, 'a'))).toBe('TOKEN_REVOKED')
    expect(await codeOf(book.check(first.secret, 'c'))).toBe('TOKEN_REVOKED')
    const again = await InvitationBook.load(store, { now: () => now })
    expect((await again.all()).map(({ state }) => state).sort()).toEqual(['revoked', 'used up'])
    now = 2000
    expect((await again.all()).map(({ state }) => state).sort()).toEqual(['expired', 'revoked'])
  })

  it('makes no invitation without an end', async () => {
    const book = await InvitationBook.load(shelf())
    for (const options of [
      { ttlMs: Number.NaN, uses: 1 },
      { ttlMs: 0, uses: 1 },
      { ttlMs: 1, uses: 0 },
    ]) {
      await expect(book.open(options)).rejects.toThrow(/invitation needs/)
    }
  })

  it('says what it makes of whoever joins, also when it is asked again', async () => {
    const store = shelf()
    const book = await InvitationBook.load(store)
    const place = { role: 'operator', site: 'annex', group: 'lab-a' } as const
    const { secret } = await book.open({ ttlMs: 1000, uses: 1, place })
    expect(await book.redeem(secret, 'a')).toEqual(place)
    expect(await (await InvitationBook.load(store)).redeem(secret, 'a')).toEqual(place)
    const { secret: plain } = await book.open({ ttlMs: 1000, uses: 1 })
    expect(await book.redeem(plain, 'a')).toBeUndefined()
  })

  it('does not keep the secret itself', async () => {
    const store = shelf()
    const { secret } = await (await InvitationBook.load(store)).open({ ttlMs: 1, uses: 1 })
    for await (const entry of store.iterator())
      expect(JSON.stringify(entry)).not.toContain(Buffer.from(secret).toString('hex'))
  })
})

describe('members and keys', () => {
  const dir = useTempDir()
  const member: Member = { id: 'a', name: 'pc1', role: 'machine', site: 'lab', group: 'lab', mac: [], added: 'x' }

  it('keeps a list without doubles', async () => {
    expect(decodeMembers(encodeMembers([member]))).toEqual([member])
    for (const list of [
      [member, { ...member, name: 'pc2' }],
      [member, { ...member, id: 'b' }],
      [{ ...member, role: 'boss' as 'master' }],
      [{ ...member, name: '../x' }],
      [{ ...member, name: ['pc1'] as unknown as string }],
      [{ ...member, id: '' }],
      [{ ...member, site: 'lab\u001b[2J' }],
      [{ ...member, added: 5 as unknown as string }],
      [{ ...member, group: '' }],
      [{ ...member, mac: ['02-00-5E-10-00-01'] }],
      [{ ...member, mac: 'x' as unknown as string[] }],
      [{ ...member, mac: Array<string>(9).fill('02:00:5e:10:00:01') }],
    ]) {
      expect(await codeOf(() => decodeMembers(encodeMembers(list)))).toBe('METADATA_INVALID')
    }
    const boss1 = '{"format":1,"members":[{"added":"x","id":"a","name":"b","role":"operator","site":"s"}]}'
    for (const text of ['null', '[]', '{"format":1}', '{"format":1,"members":[null]}', boss1]) {
      expect(await codeOf(() => decodeMembers(Buffer.from(text))), text).toBe('METADATA_INVALID')
    }
  })

  it('has the golden bytes of format 2, and reads those of format 1', async () => {
    const golden = await readFile(join(VECTORS, 'members-2.json'))
    const members = decodeMembers(golden)
    expect(members.map(({ name, role, site, group, mac }) => [name, role, site, group, mac.length])).toEqual([
      ['master', 'master', 'main', 'main', 0],
      ['office', 'operator', 'main', 'main', 1],
      ['pc07', 'machine', 'annex', 'lab-a', 2],
    ])
    expect(Buffer.from(encodeMembers(members)).equals(golden)).toBe(true)
    const old = decodeMembers(await readFile(join(VECTORS, 'members-1.json')))
    expect(old).toEqual([members[0], { ...members[2], group: 'annex', mac: [] }])
  })

  it('keeps its key, and names it as libp2p does', async () => {
    const key = await loadOrCreateMachineKey(dir('key.pem'))
    expect(await loadOrCreateMachineKey(dir('key.pem'))).toEqual(key)
    const { privateKeyFromRaw } = await import('@libp2p/crypto/keys')
    const { peerIdFromPrivateKey } = await import('@libp2p/peer-id')
    const raw = privateKeyFromRaw(Buffer.concat([key.seed, key.publicKey]))
    expect(peerIdFromPrivateKey(raw).toString()).toBe(key.id)
    expect(peerIdOf(key.publicKey)).toBe(key.id)
    expect(publicKeyOf(key.id)).toEqual(Buffer.from(key.publicKey))
    for (const wrong of ['', '1', key.id.slice(1), `${key.id}1`, 'QmNode', '0'.repeat(52), `1${key.id}`])
      expect(publicKeyOf(wrong), wrong).toBeUndefined()
  })
})
