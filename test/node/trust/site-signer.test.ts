import { copyFile, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createSite } from '../../../node/trust/create-site.ts'
import { decodeMembers, decodeRemoved, encodeMembers, type Member } from '../../../node/trust/members.ts'
import { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { MAX_MAC_ADDRESSES, MAX_MEMBERS, MAX_METADATA_FILE_BYTES, MAX_REMOVED } from '../../../protocol/constants.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'
import { forge, type RoleName, target } from './forger.ts'

const ADDED = '2026-01-01T00:00:00.000Z'
const MEMBER = { id: 'id-1', name: 'pc1', role: 'machine', site: 'lab', group: 'lab', mac: [], added: ADDED } as const
const MASTER = { ...MEMBER, id: 'id-master', name: 'master', role: 'master' } as const
const DAY_MS = 24 * 3600 * 1000

describe('createSite', () => {
  const dir = useTempDir()

  it('keeps its keys from everybody else', async () => {
    await makeSite(dir('modes'))
    expect((await stat(dir('modes', 'keys'))).mode & 0o777).toBe(0o700)
    const keys = await readdir(dir('modes', 'keys'))
    expect(keys.sort()).toEqual(['members.pem', 'root.pem', 'snapshot.pem', 'targets.pem', 'timestamp.pem'])
    for (const key of keys) expect((await stat(dir('modes', 'keys', key))).mode & 0o777).toBe(0o600)
  })

  it('leaves a site that exists as it is', async () => {
    const { trust } = await makeSite(dir('twice'))
    const again = await makeSite(dir('twice'))
    expect(again.trust.siteId).toEqual(trust.siteId)
    expect(again.trust.view().versions).toEqual({ root: 1, timestamp: 1 })
  })

  it('never signs a second first version with the keys of a site', async () => {
    await makeSite(dir('lost'))
    await rm(dir('lost', 'trust'), { recursive: true })
    const options = { keysDir: dir('lost', 'keys'), trustDir: dir('lost', 'trust'), master: MASTER }
    expect(await codeOf(createSite(options))).toBe('STATE_CORRUPT')
    expect(await codeOf(TrustStore.open(options.trustDir))).toBe('STATE_CORRUPT')
  })

  it('goes on where it was cut short', async () => {
    const options = { keysDir: dir('cut', 'keys'), trustDir: dir('cut', 'trust'), master: MASTER }
    // After some of the keys: begun again, with other keys.
    await mkdir(dir('cut', 'keys.new'), { recursive: true })
    await writeFile(dir('cut', 'keys.new', 'root.pem'), 'half a key')
    await createSite(options)
    // After the metadata, before the keys got their name: completed.
    const { siteId } = await TrustStore.open(options.trustDir)
    await rename(options.keysDir, `${options.keysDir}.new`)
    await createSite(options)
    const trust = await TrustStore.open(options.trustDir)
    expect(trust.siteId).toEqual(siteId)
    await (await SiteSigner.open({ keysDir: options.keysDir, trust })).publish(makeManifest())
    expect(await readdir(dir('cut'))).not.toContain('keys.new')
  })

  it('makes no master of a machine that only joined', async () => {
    const { trust } = await makeSite(dir('joined'))
    await TrustStore.join(dir('joined', 'machine'), trust.siteId, (name) => trust.file(name))
    const options = { keysDir: dir('joined', 'none'), trustDir: dir('joined', 'machine'), master: MASTER }
    expect(await codeOf(createSite(options))).toBe('STATE_NOT_MASTER')
  })
})

describe('SiteSigner', () => {
  const dir = useTempDir()

  it('refuses keys that are missing or of another site', async () => {
    const { trust } = await makeSite(dir('mine'))
    await makeSite(dir('theirs'))
    const open = (keysDir: string) => codeOf(SiteSigner.open({ keysDir, trust }))
    expect(await open(dir('none'))).toBe('STATE_NOT_MASTER')
    expect(await open(dir('theirs', 'keys'))).toBe('STATE_NOT_MASTER')
    await copyFile(dir('theirs', 'keys', 'members.pem'), dir('mine', 'keys', 'members.pem'))
    expect(await open(dir('mine', 'keys'))).toBe('STATE_NOT_MASTER')
    await writeFile(dir('mine', 'keys', 'members.pem'), 'no key')
    expect(await open(dir('mine', 'keys'))).toBe('STATE_CORRUPT')
  })

  it('goes on without the keys of root and targets, but for releases', async () => {
    const { trust, signer } = await makeSite(dir('offline'))
    for (const role of ['root', 'targets']) await rm(dir('offline', 'keys', `${role}.pem`))
    await signer.addMember(MEMBER)
    expect(await codeOf(signer.publish(makeManifest()))).toBe('SITE_KEY_MISSING')
    const again = await SiteSigner.open({ keysDir: dir('offline', 'keys'), trust })
    expect(await codeOf(again.assertPublishes('win'))).toBe('SITE_KEY_MISSING')
    await again.removeMember('pc1')
    expect(trust.view().members).toHaveLength(1)
  })

  it('refuses a name twice and replaces a member that joins again', async () => {
    const { signer, trust } = await makeSite(dir('names'))
    await signer.addMember(MEMBER)
    expect(await codeOf(signer.addMember({ ...MEMBER, id: 'id-2' }))).toBe('NAME_TAKEN')
    expect(await codeOf(signer.addMember({ ...MEMBER, id: 'id-2', name: 'PC1' }))).toBe('NAME_TAKEN')
    await signer.addMember({ ...MEMBER, name: 'pc9' })
    expect(trust.view().members.map((member) => member.name)).toEqual(['master', 'pc9'])
    const { versions } = trust.view()
    await signer.addMember({ ...MEMBER, name: 'pc9', added: '2027-01-01T00:00:00.000Z' })
    expect(trust.view().versions).toEqual(versions)
  })

  it('takes out a machine, also while others join, but never the master', async () => {
    const { signer, trust } = await makeSite(dir('remove'))
    await signer.addMember(MEMBER)
    const other = { ...MEMBER, id: 'id-2', name: 'pc2' }
    const [, removed] = await Promise.all([signer.addMember(other), signer.removeMember('PC1')])
    expect(removed).toEqual(MEMBER)
    expect(trust.view().members.map(({ name }) => name)).toEqual(['master', 'pc2'])
    for (const name of ['pc1', 'master', 'nobody']) expect(await codeOf(signer.removeMember(name))).toBe('NOT_A_MEMBER')
    await signer.addMember({ ...MEMBER, id: 'new-key' })
    expect(trust.view().memberById('new-key')?.name).toBe('pc1')
    // A key that was removed is never a member again.
    expect(trust.view().removed).toMatchObject([{ id: 'id-1', name: 'pc1' }])
    expect(await codeOf(signer.addMember({ ...MEMBER, name: 'pc9' }))).toBe('MEMBER_REMOVED')
    expect((await TrustStore.open(dir('remove', 'trust'))).view().memberById('id-1')).toBeUndefined()
  })

  it('names the machines that were removed last, as long as there is room', async () => {
    const removed = Array.from({ length: MAX_REMOVED + 2 }, (_, i) => ({ id: `id-${i}`, name: `pc${i}`, at: ADDED }))
    expect(decodeRemoved(encodeMembers([MASTER], removed))).toEqual(removed.slice(2))
    expect(decodeRemoved(encodeMembers([MASTER]))).toEqual([])
    // A list of as many members as there can be, with room for a few bytes more.
    const wide = Array.from({ length: MAX_MEMBERS - 1 }, (_, i): Member => {
      const entry = { ...MEMBER, id: `id-${i}`, name: `pc${i}`, site: 's'.repeat(100) }
      return { ...entry, group: 'g'.repeat(257 - JSON.stringify(entry).length) }
    })
    expect(decodeMembers(encodeMembers([MASTER, ...wide], removed))).toHaveLength(MAX_MEMBERS)
    expect(decodeRemoved(encodeMembers([MASTER, ...wide], removed))).toEqual([])
  })

  it('signs no member list that machines would refuse', async () => {
    const { signer, trust } = await makeSite(dir('bad-member'))
    for (const member of [
      { ...MEMBER, name: '../x' },
      { ...MEMBER, site: '\u001b[2J' },
      { ...MEMBER, id: 'x'.repeat(999) },
    ]) {
      expect(await codeOf(signer.addMember(member))).toBe('METADATA_INVALID')
    }
    expect(trust.view().members).toHaveLength(1)
  })

  it('loses nobody of those who are enrolled at the same time', async () => {
    const { signer, trust } = await makeSite(dir('crowd'))
    const crowd = Array.from({ length: 8 }, (_, i): Member => ({ ...MEMBER, id: `id-${i}`, name: `pc${i}` }))
    await Promise.all(crowd.map((member) => signer.addMember(member)))
    expect(trust.view().members).toHaveLength(9)
    const twins = [MEMBER, { ...MEMBER, id: 'twin' }].map((member) =>
      codeOf(signer.addMember({ ...member, name: 'same' })),
    )
    expect((await Promise.all(twins)).sort()).toEqual(['NAME_TAKEN', 'OK'])
  })

  it('enrols as many as a site can have', async () => {
    const { signer, trust } = await makeSite(dir('full'))
    const crowd = Array.from(
      { length: MAX_MEMBERS - 1 },
      (_, i): Member => ({ ...MEMBER, id: `id-${i}`, name: `pc${i}` }),
    )
    const list = encodeMembers([MASTER, ...crowd])
    const full = await forge(dir('full', 'keys'), (name) => trust.file(name), {
      edit: {
        members: (signed) => {
          signed.targets['members.json'] = target(list)
        },
      },
      targets: [list],
    })
    expect(await trust.refresh(full)).toBe(true)
    expect(await codeOf(signer.addMember({ ...MEMBER, id: 'one-more', name: 'one-more' }))).toBe('SITE_FULL')
    await signer.addMember({ ...MEMBER, name: 'renamed' })
    expect(trust.view().members).toHaveLength(MAX_MEMBERS)
  })

  it('enrols nobody for whom a list of long entries has no room', async () => {
    const { signer, trust } = await makeSite(dir('long'))
    const mac = Array.from({ length: MAX_MAC_ADDRESSES }, (_, i) => `02:00:5e:10:00:0${i}`)
    const entry = (i: number): Member => ({ ...MEMBER, id: `id-${i}`, name: `pc${i}`, group: 'g'.repeat(128), mac })
    const room = MAX_METADATA_FILE_BYTES - encodeMembers([MASTER]).byteLength
    const fits = Math.floor(
      room / (encodeMembers([MASTER, entry(1000)]).byteLength - encodeMembers([MASTER]).byteLength),
    )
    expect(fits).toBeLessThan(MAX_MEMBERS - 1)
    const list = encodeMembers([MASTER, ...Array.from({ length: fits }, (_, i) => entry(i))])
    const full = await forge(dir('long', 'keys'), (name) => trust.file(name), {
      edit: {
        members: (signed) => {
          signed.targets['members.json'] = target(list)
        },
      },
      targets: [list],
    })
    expect(await trust.refresh(full)).toBe(true)
    // Short numbers leave room for a few more; then there is none.
    let code = 'OK'
    for (let i = 9000; code === 'OK'; i++) code = await codeOf(signer.addMember(entry(i)))
    expect(code).toBe('SITE_FULL')
    expect(trust.view().members.length).toBeLessThan(MAX_MEMBERS)
  })

  it('signs release numbers that only grow', async () => {
    const { signer, trust } = await makeSite(dir('once'))
    await signer.publish(makeManifest({ release: 3 }))
    for (const release of [3, 2]) await expect(signer.publish(makeManifest({ release }))).rejects.toThrow(/not new/)
    const outcomes = await Promise.allSettled([4, 4].map((release) => signer.publish(makeManifest({ release }))))
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
    expect(
      trust
        .view()
        .releases('win')
        .map(({ release }) => release),
    ).toEqual([3, 4])
  })

  it('signs no manifest that machines would refuse', async () => {
    const { signer } = await makeSite(dir('bad-manifest'))
    expect(await codeOf(signer.publish(makeManifest({ label: 'x'.repeat(1000) })))).toBe('MANIFEST_INVALID')
    const reopened = await TrustStore.open(dir('bad-manifest', 'trust'))
    expect(reopened.view().images).toEqual([])
  })

  it('renews each role when half of its life is over, and not more often', async () => {
    const start = Date.now()
    let now = start
    const { signer, trust } = await makeSite(dir('renew'), () => now)
    const versions = async () => {
      const roles = await trust.roles()
      return (['root', 'targets', 'members', 'snapshot', 'timestamp'] as const).map(
        (role: RoleName) => roles[role].signed.version,
      )
    }
    for (const [days, expected] of [
      [14, [1, 1, 1, 1, 1]],
      [16, [1, 1, 1, 2, 2]],
      [190, [1, 1, 2, 3, 3]],
      [920, [1, 2, 3, 4, 4]],
      [5000, [1, 3, 4, 5, 5]],
    ] as const) {
      now = start + days * DAY_MS
      const { timestamp } = trust.view().versions
      expect(await signer.renew(), `day ${days}`).toBe(timestamp !== expected[4])
      expect(await versions(), `day ${days}`).toEqual(expected)
      expect(await signer.renew(), `day ${days}, again`).toBe(false)
    }
  })

  it('gives machines that were away the member list and releases signed meanwhile', async () => {
    const { signer, trust } = await makeSite(dir('away'))
    const machine = await TrustStore.join(join(dir('away'), 'machine'), trust.siteId, (name) => trust.file(name))
    await signer.addMember(MEMBER)
    await signer.publish(makeManifest({ release: 7 }))
    await machine.refresh((name) => trust.file(name))
    expect(machine.view().newest('win')?.release).toBe(7)
    expect(machine.view().members).toEqual(trust.view().members)
  })
})
