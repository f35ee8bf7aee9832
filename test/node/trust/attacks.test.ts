import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { encodeMembers } from '../../../node/trust/members.ts'
import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'
import type { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { encodeManifest } from '../../../protocol/manifest.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'
import { type Forgery, forge, newKey, type RoleName, type Signed, siteKey, target } from './forger.ts'
import { record } from './record.ts'

const MEMBER = {
  id: 'id-1',
  name: 'pc1',
  role: 'machine',
  site: 'lab',
  group: 'lab',
  mac: [],
  added: '2026-01-01T00:00:00.000Z',
} as const
const PAST = '2026-02-03T04:05:06Z'
const ROLES = ['root', 'targets', 'members', 'snapshot', 'timestamp'] as const

/** A site that published release 5 of `win`, and a machine that trusts it. */
describe('metadata that must not be believed', () => {
  const dir = useTempDir()
  let n = 0
  let here: string
  let master: { signer: SiteSigner; trust: TrustStore }
  let machine: TrustStore
  const fromMaster: FetchMetadata = (name) => master.trust.file(name)

  beforeEach(async () => {
    here = dir(`case-${n++}`)
    master = await makeSite(here)
    await master.signer.publish(makeManifest({ release: 4 }))
    await master.signer.publish(makeManifest({ release: 5 }))
    machine = await TrustStore.join(join(here, 'machine'), master.trust.siteId, fromMaster)
  })

  const forged = (forgery: Forgery, base = fromMaster) => forge(join(here, 'keys'), base, forgery)

  /** The code of a refused refresh, after a look that it left no trace; also for a machine that joins. */
  async function refused(fetch: FetchMetadata, store = machine): Promise<string> {
    const { versions, members } = store.view()
    const code = await codeOf(store.refresh(fetch))
    expect(store.view().versions).toEqual(versions)
    expect(store.view().members).toEqual(members)
    expect(store.view().newest('win')?.release).toBe(5)
    expect((await TrustStore.open(join(here, 'machine'))).view().newest('win')?.release).toBe(5)
    return code
  }

  const addRelease = (release: number, bytes: Uint8Array) => (signed: Signed) => {
    signed.targets[`images/win/${release}.json`] = target(bytes)
  }

  it('believes the forger when it has all the keys, so that the refusals below mean something', async () => {
    const manifest = encodeManifest(makeManifest({ release: 6 }))
    const fetch = await forged({ edit: { targets: addRelease(6, manifest) }, targets: [manifest] })
    expect(await machine.refresh(fetch)).toBe(true)
    expect(machine.view().newest('win')?.release).toBe(6)
  })

  it('signatures by a key that the role does not have, whichever role it is', async () => {
    const others = { stranger: newKey(), machine: newKey(), ...(await keysOf(here)) }
    for (const role of ROLES) {
      for (const [owner, key] of Object.entries(others)) {
        if (owner === role) continue
        const fetch = await forged({ edit: { [role]: () => undefined }, keys: { [role]: [key] } })
        expect(await refused(fetch), `${role} signed by ${owner}`).toBe('METADATA_INVALID')
      }
    }
  })

  it('such signatures in its own files, though every hash fits', async () => {
    const generation = join(here, 'machine', await readFile(join(here, 'machine', 'CURRENT'), 'utf8'))
    for (const role of ROLES.filter((name) => name !== 'root')) {
      for (const [key, code] of [
        [await siteKey(join(here, 'keys'), role), 'OK'],
        [newKey(), 'STATE_CORRUPT'],
      ] as const) {
        const fetch = await forged({ edit: { [role]: () => undefined }, keys: { [role]: [key] } })
        for (const name of ['targets', 'members', 'snapshot', 'timestamp']) {
          // The newest version that there is.
          let bytes = await fetch('timestamp.json')
          for (let v = 1; name !== 'timestamp' && v < 9; v++) bytes = (await fetch(`${v}.${name}.json`)) ?? bytes
          await writeFile(join(generation, `${name}.json`), bytes ?? '')
        }
        expect(await codeOf(TrustStore.open(join(here, 'machine'))), role).toBe(code)
      }
    }
  })

  it('content changed after it was signed, or without any signature', async () => {
    await master.signer.addMember(MEMBER)
    for (const role of ['timestamp', 'snapshot', 'members'] as const) {
      const edits = [
        (json: { signatures: unknown[] }) => (json.signatures = []),
        (json: { signed: Signed }) => json.signed.version++,
      ]
      for (const edit of edits) {
        const fetch: FetchMetadata = async (name) => {
          const bytes = await fromMaster(name)
          if (bytes === undefined || !name.endsWith(`${role}.json`)) return bytes
          const json = JSON.parse(Buffer.from(bytes).toString())
          edit(json)
          return Buffer.from(JSON.stringify(json))
        }
        expect(await refused(fetch), role).toBe('METADATA_INVALID')
      }
    }
  })

  it('older files: a whole replay, and each role by whoever stole the keys above it', async () => {
    const old = await record(master.trust)
    await master.signer.addMember(MEMBER)
    await master.signer.publish(makeManifest({ image: 'linux' }))
    await master.signer.renew()
    await machine.refresh(fromMaster)
    expect(await refused(old)).toBe('METADATA_ROLLBACK')

    const older = (version: number) => (signed: Signed) => {
      for (const name in signed.meta) signed.meta[name] = { version: version }
    }
    const anyOf =
      (...sources: FetchMetadata[]): FetchMetadata =>
      async (name) => {
        for (const source of sources) {
          const bytes = await source(name)
          if (bytes !== undefined) return bytes
        }
        return undefined
      }
    // Timestamp key: an older snapshot under a newer timestamp.
    const snapshot = await forged({ only: ['timestamp'], edit: { timestamp: older(3) } })
    expect(await refused(anyOf(snapshot, old))).toBe('METADATA_ROLLBACK')
    // Timestamp and snapshot keys: older targets or an older member list under newer ones of both.
    for (const name of ['targets.json', 'members.json']) {
      const edit = (signed: Signed) => {
        signed.meta[name] = { version: name === 'targets.json' ? 3 : 1 }
      }
      expect(await refused(anyOf(await forged({ edit: { snapshot: edit } }), old)), name).toBe('METADATA_ROLLBACK')
    }
  })

  it('an older release under newer versions of everything, even by the release key', async () => {
    const back = await forged({ edit: { targets: (signed) => delete signed.targets['images/win/5.json'] } })
    expect(await refused(back)).toBe('METADATA_ROLLBACK')
    const gone = await forged({
      edit: {
        targets: (signed) => {
          signed.targets = {}
        },
      },
    })
    expect(await refused(gone)).toBe('METADATA_ROLLBACK')
    const reopened = await TrustStore.open(join(here, 'machine'))
    expect(await refused(back, reopened)).toBe('METADATA_ROLLBACK')
  })

  // No refusal: what stolen online keys can do, as docs/THREATS.md says.
  it('older releases, except by a machine that joins now and has accepted nothing yet', async () => {
    const old = await record(master.trust)
    await master.signer.publish(makeManifest({ release: 6 }))
    const back = (signed: Signed) => {
      signed.meta['targets.json'] = { version: 3 }
    }
    const stolen = await forged({ edit: { snapshot: back } })
    const fetch: FetchMetadata = async (name) => (await stolen(name)) ?? (await old(name))
    const fresh = await TrustStore.join(join(here, 'fresh'), master.trust.siteId, fetch)
    expect(fresh.view().newest('win')?.release).toBe(5)
    await machine.refresh(fromMaster)
    expect(await codeOf(machine.refresh(fetch))).toBe('METADATA_ROLLBACK')
  })

  it('files that do not belong together', async () => {
    const before = await record(master.trust)
    await master.signer.addMember(MEMBER)
    const between = await record(master.trust)
    await master.signer.publish(makeManifest({ release: 6 }))
    for (const role of ['snapshot', 'targets', 'members']) {
      for (const [from, source] of Object.entries({ before, between })) {
        // The older file under the name that is asked for now.
        const fetch: FetchMetadata = async (name) => {
          const match = new RegExp(`^(\\d+)\\.${role}\\.json$`).exec(name)
          if (match === null) return fromMaster(name)
          for (let version = Number(match[1]) - 1; version > 0; version--) {
            const bytes = await source(`${version}.${role}.json`)
            if (bytes !== undefined) return bytes
          }
          return fromMaster(name)
        }
        const same = role === 'members' && from === 'between'
        if (!same) expect(await refused(fetch), `${role} of ${from}`).toBe('METADATA_INVALID')
      }
    }
  })

  it('anything too long, also from whoever may sign it', async () => {
    await master.signer.addMember(MEMBER)
    await master.signer.publish(makeManifest({ release: 6 }))
    const mebibytes = (count: number) => Buffer.alloc(count * 1024 * 1024, ' ')
    for (const victim of [
      'timestamp.json',
      '.snapshot.json',
      '.targets.json',
      '.members.json',
      'targets/',
      '2.root.json',
    ]) {
      const fetch: FetchMetadata = async (name) => (name.includes(victim) ? mebibytes(2) : fromMaster(name))
      expect(await refused(fetch), victim).toBe('METADATA_INVALID')
    }
    const huge = mebibytes(2)
    const asked: string[] = []
    const signed = await forged({ edit: { targets: addRelease(7, huge) }, targets: [huge] })
    const counting: FetchMetadata = (name) => {
      asked.push(name)
      return signed(name)
    }
    expect(await refused(counting)).toBe('METADATA_INVALID')
    expect(asked.filter((name) => name.startsWith('targets/'))).toEqual([])
  })

  it('expired roles, with what expired when and what the clock says', async () => {
    for (const role of ROLES) {
      const fetch = await forged({
        edit: {
          [role]: (signed: Signed) => {
            signed.expires = PAST
          },
        },
      })
      const error = await machine.refresh(fetch).catch((reason: unknown) => reason)
      expect(error, role).toMatchObject({ code: 'METADATA_EXPIRED' })
      const clock = formatTime(Date.now()).slice(0, 13)
      expect(String(error)).toContain(
        `${role}.json expired at ${formatTime('2026-02-03T04:05:06Z')}; the clock of this machine says ${clock}`,
      )
      expect(await refused(fetch), role).toBe('METADATA_EXPIRED')
      const fresh = TrustStore.join(join(here, `fresh-${role}`), master.trust.siteId, fetch)
      expect(await codeOf(fresh), role).toBe('METADATA_EXPIRED')
    }
  })

  it('anything new while the clock is wrong', async () => {
    await master.signer.addMember(MEMBER)
    const now = () => Date.parse('2001-01-01T00:00:00Z')
    const directory = join(here, 'machine')
    const late = await TrustStore.open(directory, { now })
    expect(late.view().newest('win')?.release).toBe(5)
    expect(await refused(fromMaster, late)).toBe('CLOCK_WRONG')
    const fresh = TrustStore.join(join(here, 'fresh'), master.trust.siteId, fromMaster, { now })
    expect(await codeOf(fresh)).toBe('CLOCK_WRONG')
    // Behind, but not impossible: said only where it may explain something.
    await master.signer.publish(makeManifest({ release: 6, time: '2040-01-01T00:00:00.000Z' }))
    await machine.refresh(fromMaster)
    const expired = await forged({
      edit: {
        timestamp: (signed) => {
          signed.expires = PAST
        },
      },
    })
    await expect(machine.refresh(expired)).rejects.toThrow(/a release it trusts was signed at 2040-01-01/)
  })

  it('a member list by the wrong key, and releases by the key of the member list', async () => {
    const list = encodeMembers([...master.trust.view().members, { ...MEMBER, id: 'intruder' }])
    const edit = {
      members: (signed: Signed) => {
        signed.targets['members.json'] = target(list)
      },
    }
    const keys = await keysOf(here)
    for (const owner of ['targets', 'snapshot', 'timestamp', 'root'] as const) {
      const fetch = await forged({ edit, keys: { members: [keys[owner]] }, targets: [list] })
      expect(await refused(fetch), owner).toBe('METADATA_INVALID')
    }
    const manifest = encodeManifest(makeManifest({ release: 9 }))
    const asked: string[] = []
    const sneaked = await forged({ edit: { members: addRelease(9, manifest) }, targets: [manifest] })
    const counting: FetchMetadata = (name) => {
      asked.push(name)
      return sneaked(name)
    }
    expect(await machine.refresh(counting)).toBe(true)
    expect(machine.view().newest('win')?.release).toBe(5)
    expect(asked.filter((name) => name.startsWith('targets/'))).toEqual([])
  })

  it('signed content that makes no sense, without taking it for damage of its own', async () => {
    const manifest = encodeManifest(makeManifest({ release: 6 }))
    const broken = Buffer.from(Buffer.from(manifest).toString().replace('"size":1000000', '"size":-1'))
    expect(broken.equals(manifest)).toBe(false)
    const newer = Buffer.from(Buffer.from(manifest).toString().replace('"format":1', '"format":2'))
    const cases: [string, Forgery][] = [
      ['METADATA_INVALID', { edit: { targets: addRelease(7, manifest) }, targets: [manifest] }],
      ['FORMAT_NEWER', { edit: { targets: addRelease(6, newer) }, targets: [newer] }],
      ['MANIFEST_INVALID', { edit: { targets: addRelease(6, broken) }, targets: [broken] }],
      ['METADATA_INVALID', { edit: { members: (signed) => delete signed.targets['members.json'] } }],
      ['METADATA_INVALID', { edit: { snapshot: (signed) => delete signed.meta['members.json'] } }],
      ['METADATA_INVALID', { edit: { targets: (signed) => (signed.delegations.roles = []) } }],
    ]
    for (const text of ['junk', '{}', '{"format":3,"members":[]}', `{"format":1,"members":[{"id":"x"}]}`]) {
      const list = Buffer.from(text)
      const edit = {
        members: (signed: Signed) => {
          signed.targets['members.json'] = target(list)
        },
      }
      cases.push([text.includes('3') ? 'FORMAT_NEWER' : 'METADATA_INVALID', { edit, targets: [list] }])
    }
    for (const [code, forgery] of cases) {
      const fetch = await forged(forgery)
      expect(await refused(fetch), JSON.stringify(forgery)).toBe(code)
      const directory = join(here, 'fresh')
      expect(await codeOf(TrustStore.join(directory, master.trust.siteId, fetch))).toBe(code)
      expect(await codeOf(TrustStore.open(directory))).toBe('STATE_CORRUPT')
    }
  })

  it('text of a peer that poses as a message of ours', async () => {
    for (const text of [
      'timestamp.json is expired',
      'Final timestamp.json is expired',
      '\u001b[2Jless than current version',
    ]) {
      for (const bytes of [
        Buffer.from(text),
        Buffer.from(JSON.stringify({ signed: { _type: text }, signatures: [] })),
      ]) {
        for (const victim of ['timestamp.json', '.snapshot.json']) {
          await master.signer.addMember({ ...MEMBER, name: `pc${n++}` })
          const fetch: FetchMetadata = async (name) => (name.endsWith(victim) ? bytes : fromMaster(name))
          const error = await machine.refresh(fetch).catch((reason: unknown) => reason)
          expect(error).toMatchObject({ code: 'METADATA_INVALID' })
          expect(String(error)).not.toContain('\u001b')
          expect(String(error).length).toBeLessThan(400)
        }
      }
    }
  })
})

async function keysOf(here: string): Promise<Record<RoleName, Awaited<ReturnType<typeof siteKey>>>> {
  const keys = await Promise.all(ROLES.map(async (role) => [role, await siteKey(join(here, 'keys'), role)] as const))
  return Object.fromEntries(keys) as Record<RoleName, Awaited<ReturnType<typeof siteKey>>>
}
