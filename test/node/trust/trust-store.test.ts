import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import type { SiteSigner } from '../../../node/trust/site-signer.ts'
import { type FetchMetadata, TrustStore } from '../../../node/trust/trust-store.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const MEMBER = { id: 'id-1', name: 'pc1', role: 'machine', site: 'lab', added: '2026-01-01T00:00:00.000Z' } as const

/** Everything a peer would serve at this moment, so that it can be replayed later. */
async function record(trust: TrustStore): Promise<FetchMetadata> {
  const names = ['1.root.json', 'timestamp.json']
  for (const role of ['snapshot', 'targets', 'members']) for (let v = 1; v < 12; v++) names.push(`${v}.${role}.json`)
  const files = new Map<string, Uint8Array>()
  const keep = async (name: string): Promise<void> => {
    const bytes = await trust.file(name)
    if (bytes !== undefined) files.set(name, bytes)
  }
  for (const name of names) await keep(name)
  for (const bytes of [...files.values()]) {
    for (const [, digest] of Buffer.from(bytes)
      .toString()
      .matchAll(/"sha256":"([0-9a-f]{64})"/g))
      await keep(`targets/${digest}`)
  }
  return async (name) => files.get(name)
}

describe('TrustStore', () => {
  const dir = useTempDir()
  let n = 0
  let here: string
  let master: { signer: SiteSigner; trust: TrustStore }
  let machine: TrustStore
  const fromMaster: FetchMetadata = (name) => master.trust.file(name)

  beforeEach(async () => {
    here = dir(`case-${n++}`)
    master = await makeSite(here)
    await master.signer.publish(makeManifest())
    machine = await TrustStore.join(join(here, 'machine'), master.trust.siteId, fromMaster)
  })

  it('takes what the site signs, and only new things change it', async () => {
    expect(machine.view().newest('win')?.release).toBe(1)
    expect(await machine.refresh(fromMaster)).toBe(false)
    await master.signer.addMember(MEMBER)
    await master.signer.publish(makeManifest({ release: 2, label: 'new' }))
    await master.signer.publish(makeManifest({ image: 'linux' }))
    let changes = 0
    machine.onChange(() => changes++)
    expect(await machine.refresh(fromMaster)).toBe(true)
    expect(changes).toBe(1)
    expect(machine.view().images).toEqual(['linux', 'win'])
    expect(machine.view().newest('win')).toMatchObject({ release: 2, label: 'new' })
    expect(machine.view().release('win', 1)?.release).toBe(1)
    expect(machine.view().memberById('id-1')).toEqual(MEMBER)
    const reopened = await TrustStore.open(join(here, 'machine'))
    expect(reopened.view().versions).toEqual(machine.view().versions)
    // A machine serves what it took: another one can join from it alone.
    const third = await TrustStore.join(join(here, 'third'), master.trust.siteId, (name) => machine.file(name))
    expect(third.view().newest('win')?.release).toBe(2)
  })

  it('refuses a replay of older metadata and keeps what it trusts', async () => {
    const old = await record(master.trust)
    await master.signer.publish(makeManifest({ release: 2 }))
    await machine.refresh(fromMaster)
    expect(await codeOf(machine.refresh(old))).toBe('METADATA_ROLLBACK')
    const mixed: FetchMetadata = async (name) => (name === 'timestamp.json' ? fromMaster(name) : old(name))
    await master.signer.addMember(MEMBER)
    expect(await codeOf(machine.refresh(mixed))).toBe('METADATA_INVALID')
    expect(machine.view().newest('win')?.release).toBe(2)
    expect((await readdir(join(here, 'machine'))).filter((name) => name.startsWith('gen-'))).toHaveLength(1)
  })

  it('refuses another site, forged and damaged files', async () => {
    const other = await makeSite(join(here, 'other'))
    await other.signer.publish(makeManifest({ release: 9 }))
    await other.signer.addMember(MEMBER)
    expect(await codeOf(machine.refresh((name) => other.trust.file(name)))).toBe('METADATA_INVALID')
    const foreign = TrustStore.join(join(here, 'new'), master.trust.siteId, (name) => other.trust.file(name))
    expect(await codeOf(foreign)).toBe('METADATA_INVALID')

    await master.signer.addMember(MEMBER)
    await master.signer.publish(makeManifest({ release: 2 }))
    for (const victim of ['timestamp.json', 'snapshot.json', 'targets.json', 'members.json', 'targets/']) {
      const damaged = (change: (bytes: Buffer) => Uint8Array | undefined): FetchMetadata => {
        return async (name) => {
          const bytes = await fromMaster(name)
          return bytes !== undefined && (name.endsWith(victim) || (victim === 'targets/' && name.startsWith(victim)))
            ? change(Buffer.from(bytes))
            : bytes
        }
      }
      const changes = [
        (bytes: Buffer) => bytes.subarray(0, -5),
        (bytes: Buffer) =>
          Buffer.from(
            bytes
              .toString()
              .replace(/"version":(\d)/, '"version":9')
              .replace('pc1', 'pc2')
              .replace('win', 'wim'),
          ),
        () => Buffer.alloc(2 * 1024 * 1024, 32),
        () => Buffer.from('[]'),
        () => undefined,
      ]
      for (const change of changes)
        expect(await codeOf(machine.refresh(damaged(change))), victim).toBe('METADATA_INVALID')
    }
    expect(machine.view().newest('win')?.release).toBe(1)
    expect(await machine.refresh(fromMaster)).toBe(true)
  })

  it('does not move to expired metadata, but opens and keeps what it trusts', async () => {
    const past = Date.now() - 400 * 24 * 3600 * 1000
    const old = await makeSite(join(here, 'old'), () => past)
    await old.signer.publish(makeManifest())
    const fetch: FetchMetadata = (name) => old.trust.file(name)
    expect(await codeOf(TrustStore.join(join(here, 'late'), old.trust.siteId, fetch))).toBe('METADATA_EXPIRED')
    const reopened = await TrustStore.open(join(here, 'old', 'trust'))
    expect(reopened.view().newest('win')?.release).toBe(1)
    expect(reopened.view().expires).toBeLessThan(Date.now())
  })

  it('notices damage of its own files', async () => {
    const generation = await readFile(join(here, 'machine', 'CURRENT'), 'utf8')
    for (const name of ['timestamp.json', 'targets.json', 'members.json', '1.root.json']) {
      const path = join(here, 'machine', generation, name)
      const bytes = await readFile(path, 'utf8')
      await writeFile(path, bytes.replace(/"expires":"\d/, '"expires":"3'))
      expect(await codeOf(TrustStore.open(join(here, 'machine'))), name).toBe('STATE_CORRUPT')
      await writeFile(path, bytes)
    }
    expect(await codeOf(TrustStore.open(join(here, 'machine')))).toBe('OK')
  })

  it('serves only the files of the protocol', async () => {
    for (const name of [
      '../CURRENT',
      'root.json',
      '99.targets.json',
      'targets/../timestamp.json',
      'targets/',
      '/etc/passwd',
      '',
    ]) {
      expect(await machine.file(name)).toBeUndefined()
    }
    expect(await machine.file('1.root.json')).toBeDefined()
  })
})

describe('SiteSigner', () => {
  const dir = useTempDir()

  it('refuses a name twice and replaces a member that joins again', async () => {
    const { signer, trust } = await makeSite(dir('names'))
    await signer.addMember(MEMBER)
    expect(await codeOf(signer.addMember({ ...MEMBER, id: 'id-2' }))).toBe('NAME_TAKEN')
    await signer.addMember({ ...MEMBER, name: 'pc9' })
    expect(trust.view().members.map((member) => member.name)).toEqual(['master', 'pc9'])
  })

  it('renews metadata only when half of its life is over', async () => {
    let now = Date.now()
    const { signer, trust } = await makeSite(dir('renew'), () => now)
    expect(await signer.renew()).toBe(false)
    now += 16 * 24 * 3600 * 1000
    expect(await signer.renew()).toBe(true)
    expect(trust.view().expires).toBeGreaterThan(now + 29 * 24 * 3600 * 1000)
    expect(await signer.renew()).toBe(false)
  })

  it('signs a release once', async () => {
    const { signer } = await makeSite(dir('once'))
    await signer.publish(makeManifest())
    await expect(signer.publish(makeManifest())).rejects.toThrow(/not new/)
  })
})
