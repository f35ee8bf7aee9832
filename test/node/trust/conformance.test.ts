import { join } from 'node:path'
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'
import type { SiteSigner } from '../../../node/trust/site-signer.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { encodeManifest } from '../../../protocol/manifest.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'
import { type Forgery, forge, giveRole, newKey, type Signed, siteKey, target } from './forger.ts'

const PAST = '2026-02-03T04:05:06Z'
/** Sooner than any root, and later than any timestamp that is signed today. */
const LATER_MS = 40 * 24 * 3600 * 1000

/**
 * Cases of the public conformance suite of The Update Framework (github.com/theupdateframework/tuf-conformance), by their names there, against
 * the store of this project. What the suite expects of a client that fails: it takes nothing of what it was offered.
 */
describe('the cases of tuf-conformance', () => {
  const dir = useTempDir()
  let n = 0
  let here: string
  let master: { signer: SiteSigner; trust: TrustStore }
  let machine: TrustStore
  const fromMaster: FetchMetadata = (name) => master.trust.file(name)
  const forged = (forgery: Forgery, base = fromMaster) => forge(join(here, 'keys'), base, forgery)
  const release = (number: number) => encodeManifest(makeManifest({ release: number }))
  const addRelease = (number: number) => (signed: Signed) => {
    signed.targets[`images/win/${number}.json`] = target(release(number))
  }

  beforeEach(async () => {
    here = dir(`case-${n++}`)
    master = await makeSite(here)
    await master.signer.publish(makeManifest({ release: 5 }))
    machine = await TrustStore.join(join(here, 'machine'), master.trust.siteId, fromMaster)
  })

  /** The code of a refresh that is refused, and leaves no trace. */
  async function refused(fetch: FetchMetadata): Promise<string> {
    const { versions } = machine.view()
    const code = await codeOf(machine.refresh(fetch))
    for (const store of [machine, await TrustStore.open(join(here, 'machine'))]) {
      expect(store.view().versions).toEqual(versions)
      expect(store.view().newest('win')?.release).toBe(5)
    }
    return code
  }

  /** Serves these files in place of those of `base`. */
  const replaced =
    (base: FetchMetadata, files: Readonly<Record<string, FetchMetadata>>): FetchMetadata =>
    (name) =>
      (files[name] ?? base)(name)

  it('test_basic_init_and_refresh, test_simple_signing', async () => {
    expect(await machine.refresh(fromMaster)).toBe(false)
    await master.signer.publish(makeManifest({ release: 6 }))
    expect(await machine.refresh(fromMaster)).toBe(true)
    expect(machine.view().newest('win')?.release).toBe(6)
  })

  it('test_duplicate_keys_root: a key counts once, whatever stands twice', async () => {
    const keys = join(here, 'keys')
    const key = await siteKey(keys, 'timestamp')
    const twoOf = (keyids: (id: string) => string[]) => (root: Signed) => {
      root.roles.timestamp = { keyids: keyids(root.roles.timestamp.keyids[0]!), threshold: 2 }
    }
    const twice = await forged({ edit: { root: twoOf((id) => [id, id]) }, keys: { timestamp: [key, key] } })
    expect(await refused(twice)).toBe('METADATA_INVALID')
    const other = newKey()
    const edit = (root: Signed): void => {
      const [before] = root.roles.timestamp.keyids
      giveRole(root, 'timestamp', other)
      twoOf((id) => [before!, id])(root)
    }
    expect(await refused(await forged({ edit: { root: edit }, keys: { timestamp: [key, key] } }))).toBe(
      'METADATA_INVALID',
    )
    // Two keys are two.
    expect(await machine.refresh(await forged({ edit: { root: edit }, keys: { timestamp: [key, other] } }))).toBe(true)
  })

  it('test_timestamp_eq_versions_check: of one version nothing new is taken', async () => {
    const { versions } = machine.view()
    const edit = (signed: Signed): void => {
      signed.version--
      signed.meta['snapshot.json'] = { version: 77 }
    }
    expect(
      await machine.refresh(await forged({ only: ['timestamp'], edit: { timestamp: edit } })).catch(() => false),
    ).toBe(false)
    expect(machine.view().versions).toEqual(versions)
  })

  it('test_TestDelegatesRolesUpdateWithConsistentSnapshotDisabled: such a site is refused, since files are asked for by their version', async () => {
    const edit = { root: (root: Signed) => Object.assign(root, { consistent_snapshot: false }) }
    expect(await refused(await forged({ edit }))).toBe('METADATA_INVALID')
  })

  it('test_max_root_rotations: a chain is followed up to a bound', async () => {
    let site = fromMaster
    for (let i = 0; i < 300; i++) site = await forged({ only: ['root'] }, site)
    await machine.refresh(site)
    const first = machine.view().versions.root
    expect(first).toBeGreaterThan(1)
    expect(first).toBeLessThan(301)
    await machine.refresh(site)
    expect(machine.view().versions.root).toBe(301)
  })

  it.each(['root', 'timestamp', 'snapshot', 'targets', 'members'] as const)('test_new_%s_expired', async (role) => {
    const edit = (signed: Signed): void => {
      signed.expires = PAST
    }
    expect(await refused(await forged({ edit: { [role]: edit } }))).toBe('METADATA_EXPIRED')
  })

  it('test_expired_metadata: what has expired here does not hinder what is new', async () => {
    let now = Date.now()
    const clock = (): number => now
    const { signer, trust } = await makeSite(join(here, 'site'), clock)
    const fetch: FetchMetadata = (name) => trust.file(name)
    const away = await TrustStore.join(join(here, 'away'), trust.siteId, fetch, { now: clock })
    now += LATER_MS
    // The library reads the clock itself.
    vi.useFakeTimers({ toFake: ['Date'], now })
    onTestFinished(() => void vi.useRealTimers())
    expect(away.view().expires).toBeLessThan(now)
    await signer.publish(makeManifest({ release: 6 }))
    expect(await away.refresh(fetch)).toBe(true)
    expect(away.view().newest('win')?.release).toBe(6)
  })

  it('test_new_targets_hash_mismatch', async () => {
    const site = await forged({ edit: { targets: addRelease(6) }, targets: [release(6)] })
    const other = await forged({ edit: { targets: addRelease(7) }, targets: [release(7)] })
    const version = await versionIn(site, 'targets')
    expect(await refused(replaced(site, { [`${version}.targets.json`]: other }))).toBe('METADATA_INVALID')
  })

  it.each(['targets', 'snapshot'] as const)('test_new_%s_version_mismatch', async (role) => {
    const above = role === 'targets' ? 'snapshot' : 'timestamp'
    const edit = (signed: Signed): void => {
      const { version } = signed.meta[`${role}.json`]!
      signed.meta[`${role}.json`] = { version: version + 1 }
    }
    const site = await forged({ edit: { [above]: edit, targets: addRelease(6) }, targets: [release(6)] })
    // The file of the version before, under the name of the one that is promised.
    const version = await versionIn(site, role)
    const before: FetchMetadata = () => site(`${version - 1}.${role}.json`)
    expect(await refused(replaced(site, { [`${version}.${role}.json`]: before }))).toBe('METADATA_INVALID')
  })

  it('test_new_timestamp_version_rollback', async () => {
    const back = (signed: Signed): void => {
      signed.version -= 2
    }
    expect(await refused(await forged({ only: ['timestamp'], edit: { timestamp: back } }))).toBe('METADATA_ROLLBACK')
  })

  it('test_new_timestamp_snapshot_rollback', async () => {
    const back = (signed: Signed): void => {
      signed.meta['snapshot.json'] = { version: 1 }
    }
    expect(await refused(await forged({ only: ['timestamp'], edit: { timestamp: back } }))).toBe('METADATA_ROLLBACK')
  })

  it('test_new_snapshot_version_rollback', async () => {
    const back = (signed: Signed): void => {
      signed.version -= 2
    }
    expect(await refused(await forged({ edit: { snapshot: back } }))).toBe('METADATA_ROLLBACK')
  })

  it('test_snapshot_rollback_with_local_snapshot_hash_mismatch', async () => {
    // The timestamp names other bytes than those of the snapshot here, which all the same says what targets there have been.
    const edit = {
      snapshot: (signed: Signed) => {
        signed.meta['targets.json'] = { version: 1 }
      },
    }
    expect(await refused(await forged({ edit }))).toBe('METADATA_ROLLBACK')
  })

  it.each(['timestamp', 'snapshot', 'targets'] as const)('test_new_%s_fast_forward_recovery', async (role) => {
    const far = (signed: Signed): void => {
      signed.version = 99_999
    }
    expect(await machine.refresh(await forged({ edit: { [role]: far } }))).toBe(true)
    // Twice: a timestamp of the same version would be nothing new.
    for (const number of [6, 7]) await master.signer.publish(makeManifest({ release: number }))
    expect(await codeOf(machine.refresh(fromMaster))).toBe('METADATA_ROLLBACK')
    // The root gives new keys to the roles above the one that ran ahead, and to that one.
    const fresh = { timestamp: newKey(), snapshot: newKey(), targets: newKey() }
    const edit = {
      root: (root: Signed) => {
        for (const [one, key] of Object.entries(fresh)) giveRole(root, one as keyof typeof fresh, key)
      },
      targets: (): undefined => undefined,
    }
    const healed = await forged({
      edit,
      keys: Object.fromEntries(Object.entries(fresh).map(([one, key]) => [one, [key]])),
    })
    expect(await machine.refresh(healed)).toBe(true)
    expect(machine.view().newest('win')?.release).toBe(7)
  })

  it('test_root_has_keys_but_not_snapshot', async () => {
    const edit = (root: Signed): void => {
      root.roles.snapshot.keyids = []
    }
    expect(await refused(await forged({ edit: { root: edit } }))).toBe('METADATA_INVALID')
  })

  it('test_snapshot_threshold', async () => {
    const edit = (root: Signed): void => {
      root.roles.snapshot.threshold = 2
    }
    expect(await refused(await forged({ edit: { root: edit } }))).toBe('METADATA_INVALID')
  })

  it('test_downloaded_file_is_correct, test_multiple_changes_to_target', async () => {
    for (const number of [6, 7]) {
      const wrong = await forged({ edit: { targets: addRelease(number) }, targets: [release(number)] })
      const content: FetchMetadata = async (name) =>
        name.startsWith('targets/') && (await fromMaster(name)) === undefined
          ? Buffer.alloc(release(number).length)
          : wrong(name)
      const before = machine.view().newest('win')?.release
      expect(await codeOf(machine.refresh(content))).toBe('METADATA_INVALID')
      expect(machine.view().newest('win')?.release).toBe(before)
      await master.signer.publish(makeManifest({ release: number }))
      expect(await machine.refresh(fromMaster)).toBe(true)
      expect(machine.view().newest('win')?.release).toBe(number)
    }
  })
})

/** The version of a role that a peer's metadata promise. */
async function versionIn(site: FetchMetadata, role: 'targets' | 'snapshot'): Promise<number> {
  const read = async (name: string): Promise<Signed> =>
    (JSON.parse(Buffer.from((await site(name))!).toString()) as { signed: Signed }).signed
  const snapshot = (await read('timestamp.json')).meta['snapshot.json']!.version
  return role === 'snapshot' ? snapshot : (await read(`${snapshot}.snapshot.json`)).meta['targets.json']!.version
}
