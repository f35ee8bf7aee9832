import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'
import type { TrustStore } from '../../../node/trust/trust-store.ts'

/** Everything a peer would serve at this moment, so that it can be replayed later. */
export async function record(trust: TrustStore): Promise<FetchMetadata> {
  const files = new Map<string, Uint8Array>()
  const keep = async (name: string): Promise<{ meta: Record<string, { version: number }> }> => {
    const bytes = await trust.file(name)
    if (bytes === undefined) throw new Error(`there is no ${name}`)
    files.set(name, bytes)
    for (const [, digest] of Buffer.from(bytes)
      .toString()
      .matchAll(/"sha256":"([0-9a-f]{64})"/g)) {
      const target = await trust.file(`targets/${digest}`)
      if (target !== undefined) files.set(`targets/${digest}`, target)
    }
    return JSON.parse(Buffer.from(bytes).toString()).signed
  }
  for (let version = 1; version <= trust.view().versions.root; version++) await keep(`${version}.root.json`)
  const { meta } = await keep('timestamp.json')
  const snapshot = await keep(`${meta['snapshot.json']?.version}.snapshot.json`)
  for (const role of ['targets', 'members']) await keep(`${snapshot.meta[`${role}.json`]?.version}.${role}.json`)
  return async (name) => files.get(name)
}
