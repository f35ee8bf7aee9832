import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { loadOrCreateMachineKey, type MachineKey } from '../../../node/trust/machine-key.ts'
import { checkMaster, proveMaster } from '../../../node/trust/master-proof.ts'
import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'
import type { TrustStore } from '../../../node/trust/trust-store.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeSite } from '../../support/site.ts'
import { useTempDir } from '../../support/temp-dir.ts'
import { forge, giveRole, newKey } from './forger.ts'

describe('the proof of a master', () => {
  const dir = useTempDir()
  let n = 0
  let here: string
  let trust: TrustStore
  let key: MachineKey
  let files: FetchMetadata
  const vouched = () => ({ siteId: trust.siteId, master: 'id-master', machine: 'id-pc' })
  const codeFor = (proof: ReturnType<typeof proveMaster>, fetch = files, of: object = {}): Promise<string> =>
    codeOf(checkMaster({ ...vouched(), ...of }, proof, fetch))

  beforeEach(async () => {
    here = dir(`case-${n++}`)
    trust = (await makeSite(here)).trust
    key = await loadOrCreateMachineKey(join(here, 'keys', 'timestamp.pem'))
    files = (name) => trust.file(name)
  })

  it('is believed for this site, this master and this machine only', async () => {
    const proof = proveMaster(vouched(), key)
    expect(await codeFor(proof)).toBe('OK')
    expect(await codeFor(proof, files, { master: 'id-other' })).toBe('METADATA_INVALID')
    expect(await codeFor(proof, files, { machine: 'id-other' })).toBe('METADATA_INVALID')
    expect(await codeFor(proof, files, { siteId: Buffer.alloc(32, 7) })).toBe('METADATA_INVALID')
    expect(await codeFor({ ...proof, signature: 'AAAA' })).toBe('METADATA_INVALID')
    expect(await codeFor({ by: 'nobody', signature: proof.signature })).toBe('METADATA_INVALID')
  })

  it('is not believed of another key, also one of the site', async () => {
    for (const name of ['members', 'root', 'own']) {
      const other = await loadOrCreateMachineKey(join(here, 'keys', `${name}.pem`))
      expect(await codeFor(proveMaster(vouched(), other)), name).toBe('METADATA_INVALID')
    }
  })

  it('is not believed without the root metadata of the site, and follows the keys that later ones name', async () => {
    const proof = proveMaster(vouched(), key)
    expect(await codeFor(proof, async () => undefined)).toBe('METADATA_INVALID')
    expect(await codeFor(proof, async () => Buffer.from('{}'))).toBe('METADATA_INVALID')
    const junk: FetchMetadata = async (name) => (name === '2.root.json' ? Buffer.from('{"signed":{}}') : files(name))
    expect(await codeFor(proof, junk)).toBe('METADATA_INVALID')
    const fresh = newKey()
    const next = await forge(join(here, 'keys'), files, {
      edit: { root: (root) => giveRole(root, 'timestamp', fresh) },
      only: ['root'],
    })
    expect(await codeFor(proof, next)).toBe('METADATA_INVALID')
    const jwk = fresh.export({ format: 'jwk' })
    const [seed, publicKey] = [jwk.d, jwk.x].map((part) => Buffer.from(part ?? '', 'base64url'))
    expect(await codeFor(proveMaster(vouched(), { seed: seed!, publicKey: publicKey! }), next)).toBe('OK')
  })
})
