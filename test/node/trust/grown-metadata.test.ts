import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'
import { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { encodeManifest } from '../../../protocol/manifest.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { type Forgery, forge, type Signed, target } from './forger.ts'

const MORE = { custom: { of: 'a later version' }, list: [{ deep: null }] }
const MEMBER = { id: 'id-1', name: 'pc1', role: 'machine', site: 'lab', group: 'lab', mac: [], added: 'x' } as const

/** Unknown keys in each object of a role, but where keys are names: of files, keys and roles. */
function extend(role: Signed): void {
  const grow = (value: unknown, isMap = false): void => {
    if (Array.isArray(value)) for (const one of value) grow(one)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return
    for (const [key, inner] of Object.entries(value)) {
      // The name of a key is the digest of what it is.
      if (key === 'keys' || key === 'hashes') continue
      grow(inner, ['targets', 'meta', 'roles'].includes(key))
    }
    if (!isMap) Object.assign(value, { aNewKey: MORE })
  }
  grow(role)
}

/** Bytes of a document with a key more. */
const grown = (bytes: Uint8Array, more: string): Buffer =>
  Buffer.from(`{${more},${Buffer.from(bytes).toString().slice(1)}`)

/** Lets a role name other content. */
const naming = (path: string, bytes: Uint8Array) => (signed: Signed) => {
  signed.targets[path] = target(bytes)
}

async function site() {
  const here = await temporaryDirectory()
  const master = await makeSite(here)
  await master.signer.addMember(MEMBER)
  const fromMaster: FetchMetadata = (name) => master.trust.file(name)
  const forged = (forgery: Forgery) => forge(join(here, 'keys'), fromMaster, forgery)
  return { here, master, fromMaster, forged }
}

describe('metadata of a later version', () => {
  it('is believed, used, and passed on as it came, whatever keys it has besides', async () => {
    const { here, master, fromMaster, forged } = await site()
    const manifest = grown(encodeManifest(makeManifest({ release: 3 })), '"aNewKey":[{"deep":null}]')
    const list = Buffer.from(
      JSON.stringify({
        aNewKey: MORE,
        format: 2,
        members: master.trust.view().members.map((one) => ({ ...one, aNewKey: MORE })),
      }),
    )
    const fetch = await forged({
      edit: {
        root: extend,
        timestamp: extend,
        snapshot: extend,
        targets: (signed) => {
          signed.targets['images/win/3.json'] = target(manifest)
          extend(signed)
        },
        members: (signed) => {
          signed.targets['members.json'] = target(list)
          extend(signed)
        },
      },
      targets: [manifest, list],
    })
    for (const machine of [
      await TrustStore.join(join(here, 'refreshed'), master.trust.siteId, fromMaster),
      await TrustStore.join(join(here, 'joined'), master.trust.siteId, fetch),
    ]) {
      await machine.refresh(fetch)
      expect(machine.view().newest('win')).toMatchObject({ release: 3, size: 1_000_000 })
      expect(machine.view().memberById('id-1')).toMatchObject(MEMBER)
      const { root, timestamp } = machine.view().versions
      expect({ root, timestamp }).toEqual({ root: 2, timestamp: 3 })
      for (const name of ['2.root.json', 'timestamp.json', '3.snapshot.json', '2.targets.json', '3.members.json']) {
        const bytes = await machine.file(name)
        expect(bytes, name).toEqual(await fetch(name))
        expect(Buffer.from(bytes!).toString(), name).toContain('aNewKey')
      }
      for (const bytes of [manifest, list]) {
        const name = `targets/${target(bytes).hashes.sha256}`
        expect(await machine.file(name)).toEqual(bytes)
      }
    }
  })

  it('keeps its keys when the master of this version signs the next one', async () => {
    const { here, master, forged } = await site()
    const list = Buffer.from(
      JSON.stringify({ format: 2, members: master.trust.view().members.map((one) => ({ ...one, aNewKey: 1 })) }),
    )
    const fetch = await forged({
      edit: {
        targets: extend,
        members: (signed) => {
          signed.targets['members.json'] = target(list)
          extend(signed)
        },
      },
      targets: [list],
    })
    expect(await master.trust.refresh(fetch)).toBe(true)
    const signer = await SiteSigner.open({ keysDir: join(here, 'keys'), trust: master.trust })
    await signer.publish(makeManifest())
    await signer.addMember({ ...MEMBER, id: 'id-2', name: 'pc2' })
    const generation = join(here, 'trust', await readFile(join(here, 'trust', 'CURRENT'), 'utf8'))
    const { signed } = JSON.parse(await readFile(join(generation, 'targets.json'), 'utf8')) as { signed: object }
    expect(signed).toHaveProperty('aNewKey', MORE)
    const members = master.trust.view().members as readonly { name: string; aNewKey?: number }[]
    expect(members.map(({ name, aNewKey }) => [name, aNewKey])).toEqual([
      ['master', 1],
      ['pc1', 1],
      ['pc2', undefined],
    ])
  })

  it('is refused if its format is higher, also where it is trusted already', async () => {
    const { here, master, fromMaster, forged } = await site()
    const newer = Buffer.from(
      Buffer.from(encodeManifest(makeManifest())).toString().replace('"format":1', '"format":2'),
    )
    const list = Buffer.from('{"format":3,"people":[]}')
    for (const forgery of [
      {
        edit: { targets: naming('images/win/1.json', newer) },
        targets: [newer],
      },
      { edit: { members: naming('members.json', list) }, targets: [list] },
    ]) {
      const machine = await TrustStore.join(
        join(here, `machine-${forgery.targets[0]!.length}`),
        master.trust.siteId,
        fromMaster,
      )
      const error: unknown = await machine.refresh(await forged(forgery)).catch((reason: unknown) => reason)
      expect(error).toMatchObject({
        code: 'FORMAT_NEWER',
        message: expect.stringMatching(
          /^the (manifest|member list) was written by a newer version of mesh: format [23]/,
        ),
      })
      expect(machine.view().memberById('id-1')).toBeDefined()
    }
  })

  it('is no damage of the state directory of an older version that was put back', async () => {
    const { here, master } = await site()
    await master.signer.publish(makeManifest())
    const generation = join(here, 'trust', await readFile(join(here, 'trust', 'CURRENT'), 'utf8'))
    // As a newer version would have left it there, signed: only the content matters to what is said.
    const newer = Buffer.from(
      Buffer.from(encodeManifest(makeManifest())).toString().replace('"format":1', '"format":2'),
    )
    const fetch = await forge(join(here, 'keys'), (name) => master.trust.file(name), {
      edit: { targets: naming('images/win/1.json', newer) },
      targets: [newer],
    })
    for (const [name, version] of [
      ['targets', 3],
      ['snapshot', 4],
    ] as const)
      await writeFile(join(generation, `${name}.json`), (await fetch(`${version}.${name}.json`))!)
    await writeFile(join(generation, 'timestamp.json'), (await fetch('timestamp.json'))!)
    await writeFile(join(generation, 'targets', target(newer).hashes.sha256), newer)
    expect((await readdir(join(generation, 'targets'))).length).toBeGreaterThan(2)
    expect(await codeOf(TrustStore.open(join(here, 'trust')))).toBe('FORMAT_NEWER')
  })
})
