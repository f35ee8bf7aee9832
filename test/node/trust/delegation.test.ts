import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Snapshot, Targets, Timestamp } from '@tufjs/models'
import { beforeEach, describe, expect, it } from 'vitest'
import { makeSiteKey } from '../../../node/trust/key-file.ts'
import { addTarget, base, writeRole } from '../../../node/trust/sign-role.ts'
import { keysOf, type SiteKey, SiteKeys } from '../../../node/trust/site-keys.ts'
import { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { loadRoles, loadView } from '../../../node/trust/trusted-view.ts'
import { encodeManifest } from '../../../protocol/manifest.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const ROLE = 'images-school-a'
const IMAGE = 'school-a/win'

describe('images of a prefix that are delegated', () => {
  const dir = useTempDir()
  let n = 0
  let here: string
  let trust: TrustStore
  let signer: SiteSigner
  let key: SiteKey
  let machine: TrustStore
  const signerOf = (...given: SiteKey[]): Promise<SiteSigner> =>
    SiteSigner.open({ keysDir: join(here, 'keys'), trust, given })
  const follow = (): Promise<boolean> => machine.refresh((name) => trust.file(name))
  const newest = (image: string): number | undefined => machine.view().newest(image)?.release

  beforeEach(async () => {
    here = dir(`case-${n++}`)
    ;({ trust, signer } = await makeSite(here))
    await signer.publish(makeManifest())
    machine = await TrustStore.join(join(here, 'machine'), trust.siteId, (name) => trust.file(name))
    key = makeSiteKey()
    await (await signerOf(key)).delegate(ROLE, { keys: [key.key], threshold: 1 })
  })

  it('are signed by their key without that of targets, which signs no other image', async () => {
    await rm(join(here, 'keys', 'targets.pem'))
    const own = await signerOf(key)
    await own.publish(makeManifest({ image: IMAGE }))
    await own.assertPublishes(IMAGE)
    for (const image of ['win', 'school-b/win', 'school-a', 'school-a/room/win', 'school-ab/win'])
      expect([image, await codeOf(own.publish(makeManifest({ image, release: 2 })))]).toEqual([
        image,
        'SITE_KEY_MISSING',
      ])
    expect(await codeOf(signer.publish(makeManifest({ image: IMAGE, release: 2 })))).toBe('SITE_KEY_MISSING')
    expect(await follow()).toBe(true)
    expect([newest(IMAGE), newest('win')]).toEqual([1, 1])
    await own.publish(makeManifest({ image: IMAGE, release: 2 }))
    expect(await follow()).toBe(true)
    expect(newest(IMAGE)).toBe(2)
    // Another machine, which begins now, and one that opens what it has.
    const third = await TrustStore.join(join(here, 'third'), trust.siteId, (name) => machine.file(name))
    expect(third.view().newest(IMAGE)?.release).toBe(2)
    expect((await TrustStore.open(join(here, 'third'))).view().images).toEqual([IMAGE, 'win'])
  })

  it('are all that counts of what their key has signed', async () => {
    const manifest = encodeManifest(makeManifest({ release: 9, root: Buffer.alloc(32, 9) }))
    const other = encodeManifest(makeManifest({ image: IMAGE, release: 1 }))
    await trust.change(async (scratch) => {
      const roles = await loadRoles(scratch)
      const keys = await SiteKeys.load(join(here, 'keys'))
      const { signed } = roles.delegated.get(ROLE)!
      const targets = {
        'images/win/9.json': await addTarget(scratch, 'images/win/9.json', manifest),
        [`images/${IMAGE}/1.json`]: await addTarget(scratch, `images/${IMAGE}/1.json`, other),
      }
      const next = new Targets({ ...base('targets', signed.version + 1, Date.now()), targets })
      const { meta } = roles.snapshot.signed
      meta[`${ROLE}.json`] = await writeRole(scratch, ROLE, next, [key])
      const snapshot = new Snapshot({ ...base('snapshot', roles.snapshot.signed.version + 1, Date.now()), meta })
      const by = (role: string): SiteKey[] => keys.signers(role, keysOf(roles, role))
      const snapshotMeta = await writeRole(scratch, 'snapshot', snapshot, by('snapshot'))
      const version = roles.timestamp.signed.version + 1
      const timestamp = new Timestamp({ ...base('timestamp', version, Date.now()), snapshotMeta })
      await writeRole(scratch, 'timestamp', timestamp, by('timestamp'))
      return loadView(scratch)
    })
    expect(await follow()).toBe(true)
    expect([newest('win'), newest(IMAGE)]).toEqual([1, 1])
  })

  it('are told to a reader also after the metadata that it has opened are gone', async () => {
    const reader = await TrustStore.open(join(here, 'trust'))
    const own = await signerOf(key)
    for (const release of [1, 2]) await own.publish(makeManifest({ image: IMAGE, release }))
    expect((await reader.roles()).delegated.get(ROLE)?.signed.targets).toHaveProperty([`images/${IMAGE}/2.json`])
  })

  it('are taken back with all that was published, or given to another key', async () => {
    await (await signerOf(key)).publish(makeManifest({ image: IMAGE }))
    const next = makeSiteKey()
    await (await signerOf(next)).delegate(ROLE, { keys: [next.key], threshold: 1 })
    expect(await follow()).toBe(true)
    await rm(join(here, 'keys', 'targets.pem'))
    expect(await codeOf((await signerOf(key)).publish(makeManifest({ image: IMAGE, release: 2 })))).toBe(
      'SITE_KEY_MISSING',
    )
    await (await signerOf(next)).publish(makeManifest({ image: IMAGE, release: 2 }))
    expect(await codeOf((await signerOf(next)).delegate(ROLE, undefined))).toBe('SITE_KEY_MISSING')
    await follow()
    expect(newest(IMAGE)).toBe(2)
  })

  it('stay published when they are taken back, and can be delegated again', async () => {
    await (await signerOf(key)).publish(makeManifest({ image: IMAGE }))
    await follow()
    await signer.delegate(ROLE, undefined)
    expect(await follow()).toBe(true)
    expect(newest(IMAGE)).toBe(1)
    expect(await codeOf(signer.delegate(ROLE, undefined))).toBe('USAGE')
    await signer.publish(makeManifest({ image: IMAGE, release: 2 }))
    await (await signerOf(key)).delegate(ROLE, { keys: [key.key], threshold: 1 })
    await (await signerOf(key)).publish(makeManifest({ image: IMAGE, release: 3 }))
    expect(await follow()).toBe(true)
    expect(newest(IMAGE)).toBe(3)
  })
})
