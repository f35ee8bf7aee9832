import { join } from 'node:path'
import { createSite } from '../../node/trust/create-site.ts'
import { SiteSigner } from '../../node/trust/site-signer.ts'
import { TrustStore } from '../../node/trust/trust-store.ts'
import type { Manifest } from '../../protocol/manifest.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { byteCount } from '../../protocol/units.ts'

/** A site with real keys in `dir`; `now` is the clock its metadata is signed by. */
export async function makeSite(dir: string, now?: () => number): Promise<{ signer: SiteSigner; trust: TrustStore }> {
  const keysDir = join(dir, 'keys')
  const trustDir = join(dir, 'trust')
  const master = {
    id: 'id-master',
    name: 'master',
    role: 'master',
    site: 'lab',
    group: 'lab',
    mac: [],
    added: '2026-01-01T00:00:00.000Z',
  } as const
  await createSite({ keysDir, trustDir, master, ...(now === undefined ? {} : { now: now() }) })
  const trust = await TrustStore.open(trustDir)
  return { trust, signer: await SiteSigner.open({ keysDir, trust, ...(now === undefined ? {} : { now }) }) }
}

export function makeManifest(over: Partial<Manifest> = {}): Manifest {
  return {
    image: 'win',
    release: 1,
    size: byteCount(1_000_000),
    blockSize: byteCount(65536),
    root: Buffer.alloc(32, 1),
    preserve: RangeSet.empty,
    label: '',
    time: '2026-01-01T00:00:00.000Z',
    ...over,
  }
}
