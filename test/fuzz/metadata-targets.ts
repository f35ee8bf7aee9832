import assert from 'node:assert/strict'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { TrustStore } from '../../node/trust/trust-store.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { isRecord } from '../../protocol/json-shape.ts'
import { forge, type RoleName, type Signed } from '../node/trust/forger.ts'
import { makeManifest, makeSite } from '../support/site.ts'
import { folder } from './folder.ts'
import type { Target } from './target.ts'

const RELEASE = 5
type Fuzzed = Exclude<RoleName, 'root'>

/** A site that has published a release, and a machine that trusts it. */
interface Trusting {
  readonly keys: string
  readonly machine: string
  readonly fetch: TrustStore['file']
}

let site: Promise<Trusting> | undefined

function trusting(): Promise<Trusting> {
  site ??= (async () => {
    const here = await mkdtemp(join(folder(), 'metadata-'))
    const { signer, trust } = await makeSite(here)
    await signer.publish(makeManifest({ release: RELEASE }))
    const fetch: TrustStore['file'] = (name) => trust.file(name)
    const machine = join(here, 'machine')
    await TrustStore.join(machine, trust.siteId, fetch)
    return { keys: join(here, 'keys'), machine, fetch }
  })()
  return site
}

/** The signed part of a role that is the next one after what the machine trusts. */
async function nextOf(role: Fuzzed): Promise<Signed> {
  const { keys, fetch } = await trusting()
  let next: Signed | undefined
  await forge(keys, fetch, {
    edit: {
      [role]: (signed: Signed) => {
        next = structuredClone(signed)
      },
    },
  })
  return next!
}

/**
 * The signed part of a role, as it is sent by whoever has all keys but that of root: it is signed, and named by the roles above it. What a
 * machine refuses leaves it as it was, and what it takes leaves it a release that is not older.
 */
function role(name: Fuzzed): Target {
  return {
    name: `${name}-metadata`,
    errors: ['METADATA_INVALID', 'METADATA_EXPIRED', 'METADATA_ROLLBACK', 'FORMAT_NEWER'],
    inputsInSuite: 150,
    async seeds() {
      return [Buffer.from(JSON.stringify(await nextOf(name)))]
    },
    async run(input) {
      const content = parsed(input)
      if (content === undefined) return false
      const { keys, machine, fetch } = await trusting()
      const forged = await forge(keys, fetch, { edit: { [name]: (signed: Signed) => replace(signed, content) } }).catch(
        () => undefined,
      )
      // No JSON can be signed that canonical JSON does not have, such as a fraction.
      if (forged === undefined) return false
      const copy = await mkdtemp(join(folder(), 'machine-'))
      try {
        await cp(machine, copy, { recursive: true })
        await assertHolds(copy, forged)
        return true
      } finally {
        await rm(copy, { recursive: true })
      }
    },
  }
}

async function assertHolds(copy: string, forged: TrustStore['file']): Promise<void> {
  const store = await TrustStore.open(copy)
  const before = store.view()
  try {
    await store.refresh(forged)
  } catch (error) {
    const kept = (await TrustStore.open(copy)).view()
    assert.deepEqual(kept.versions, before.versions)
    if (isMeshError(error)) assert(error.message.length < 2_000, 'the message is as long as what the peer sent')
    throw error
  }
  const after = (await TrustStore.open(copy)).view()
  assert.deepEqual(after.versions, store.view().versions)
  assert((after.newest('win')?.release ?? 0) >= RELEASE, 'the release is gone')
  assert(after.versions.timestamp >= before.versions.timestamp, 'the versions go back')
}

function parsed(input: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(input.toString())
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

function replace(signed: Signed, content: Record<string, unknown>): void {
  for (const key of Object.keys(signed)) delete (signed as unknown as Record<string, unknown>)[key]
  Object.assign(signed, content)
}

export const METADATA_TARGETS: readonly Target[] = (['timestamp', 'snapshot', 'targets', 'members'] as const).map(role)
