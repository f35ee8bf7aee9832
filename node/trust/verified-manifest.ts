import type { Manifest } from '../../protocol/manifest.ts'

declare const verified: unique symbol

/** A manifest whose signatures were checked. Only node/trust makes one, and a restore accepts nothing else. */
export type VerifiedManifest = Manifest & { readonly [verified]: true }

/** Called by the trust store once a manifest's hash is proven by signed metadata; nowhere else. */
export function markVerified(manifest: Manifest): VerifiedManifest {
  return manifest as VerifiedManifest
}
