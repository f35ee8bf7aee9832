import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'
import type { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'
import { forge, giveRole, newKey, type Signed, siteKey } from './forger.ts'
import { record } from './record.ts'

describe('a chain of root metadata', () => {
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

  it('is followed to the end, kept whole and served to machines that know only its first link', async () => {
    const keys = join(here, 'keys')
    let rootKey = await siteKey(keys, 'root')
    let site = fromMaster
    for (let version = 2; version <= 4; version++) {
      const [old, next] = [rootKey, newKey()]
      site = await forge(keys, site, {
        only: ['root'],
        edit: { root: (root) => giveRole(root, 'root', next) },
        keys: { root: [old, next] },
      })
      rootKey = next
    }
    // Nothing but the root is newer.
    expect(await machine.refresh(site)).toBe(true)
    expect(machine.view().versions).toEqual({ root: 4, timestamp: 2 })
    expect(await machine.refresh(site)).toBe(false)
    expect((await TrustStore.open(join(here, 'machine'))).view().versions.root).toBe(4)
    for (let version = 1; version <= 4; version++)
      expect(await machine.file(`${version}.root.json`)).toEqual(await site(`${version}.root.json`))
    const third = await TrustStore.join(join(here, 'third'), master.trust.siteId, (name) => machine.file(name))
    expect(third.view().versions.root).toBe(4)
    expect(third.siteId).toEqual(master.trust.siteId)
    // A machine that was away for some of it, and a peer that has not heard of it.
    expect(await master.trust.refresh((name) => third.file(name))).toBe(true)
    expect(await machine.refresh(await record(third))).toBe(false)
    const generation = join(here, 'machine', await readFile(join(here, 'machine', 'CURRENT'), 'utf8'))
    expect(await readFile(join(generation, 'root.json'))).toEqual(await readFile(join(generation, '4.root.json')))
  })

  it('is broken by a link that the one before did not sign, or that skips one', async () => {
    const keys = join(here, 'keys')
    const old = await siteKey(keys, 'root')
    const thief = newKey()
    const take = { root: (root: Signed) => giveRole(root, 'root', thief) }
    for (const signers of [[thief], [old], [newKey(), thief]]) {
      const fetch = await forge(keys, fromMaster, { edit: take, keys: { root: signers } })
      expect(await codeOf(machine.refresh(fetch))).toBe('METADATA_INVALID')
    }
    const skipping = await forge(keys, fromMaster, { edit: { root: (root) => root.version++ } })
    expect(await codeOf(machine.refresh(skipping))).toBe('METADATA_INVALID')
    const same = await forge(keys, fromMaster, { edit: { root: (root) => root.version-- } })
    expect(await codeOf(machine.refresh(same))).toBe('METADATA_INVALID')
    expect(machine.view().versions.root).toBe(1)
  })

  it('takes a stolen online key out of force, and what was signed by it', async () => {
    const keys = join(here, 'keys')
    // The thief's timestamp is so new that nothing honest could ever follow it.
    const far = (signed: Signed) => {
      signed.version = 2 ** 31
    }
    const stolen = await forge(keys, fromMaster, { only: ['timestamp'], edit: { timestamp: far } })
    expect(await machine.refresh(stolen)).toBe(true)
    await master.signer.publish(makeManifest({ release: 2 }))
    expect(await codeOf(machine.refresh(fromMaster))).toBe('METADATA_ROLLBACK')
    const fresh = newKey()
    const healed = await forge(keys, fromMaster, {
      edit: { root: (root) => giveRole(root, 'timestamp', fresh) },
      keys: { timestamp: [fresh] },
    })
    expect(await machine.refresh(healed)).toBe(true)
    expect(machine.view().newest('win')?.release).toBe(2)
    expect(machine.view().versions.timestamp).toBeLessThan(2 ** 31)
    expect(await codeOf(machine.refresh(stolen))).toBe('METADATA_INVALID')
  })
})
