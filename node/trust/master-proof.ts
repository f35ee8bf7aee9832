import { canonicalize } from '@tufjs/canonical-json'
import { Metadata, MetadataKind, type Root } from '@tufjs/models'
import { type Digest, digestOf, sameBytes, toHex } from '../../protocol/digest.ts'
import { readJson } from '../../protocol/document.ts'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { type Check, isRecord } from '../../protocol/json-shape.ts'
import { peerIdOf } from '../../protocol/peer-id.ts'
import { isSigned, type SigningKey, signDocument } from '../../protocol/signed-document.ts'
import type { FetchMetadata } from './metadata-update.ts'

/** That a key of the site vouches for its master: whose key, as a peer id, and its signature. */
interface MasterProof {
  readonly by: string
  readonly signature: string
}

/** Whom a proof is about: `master` is the master of `siteId`, says a key of the site to the machine that asked. Peer ids. */
interface Vouched {
  readonly siteId: Digest
  readonly master: string
  readonly machine: string
}

/** Roots that a site can have had: keys are replaced by hand. */
const MAX_ROOTS = 1024

/**
 * Vouches for the master of a site with its timestamp key, which the root metadata name. The asker is named as well, so that a proof is
 * of no use to whoever else hears it; the key of the master itself is proven by noise.
 */
export function proveMaster(vouched: Vouched, key: SigningKey): MasterProof {
  const { by, signature } = signDocument('master', textOf(vouched), key)
  return { by, signature }
}

/**
 * Whether a proof is one of this site. `fetch` gets the site's root metadata from whoever is to be proven: the first must have the
 * SHA-256 `siteId`, and each signs for the next (The Update Framework 1.0.33, section 5.3). Expiry does not matter here: what the
 * machine takes of the site is checked when it takes it. Errors: METADATA_INVALID, and those of `fetch`.
 */
export async function checkMaster(vouched: Vouched, proof: MasterProof, fetch: FetchMetadata): Promise<void> {
  const keys = await timestampKeys(vouched.siteId, fetch)
  const isRight = keys.includes(proof.by) && isSigned('master', { ...proof, text: textOf(vouched) })
  if (!isRight) throw new MeshError('METADATA_INVALID', `no key of the site vouches for ${vouched.master}`)
}

function textOf({ siteId, master, machine }: Vouched): string {
  return canonicalize({ machine, master, site: toHex(siteId) })
}

/** The timestamp keys that the newest root names, as peer ids. */
async function timestampKeys(siteId: Digest, fetch: FetchMetadata): Promise<string[]> {
  const first = await fetch('1.root.json')
  if (first === undefined || !sameBytes(digestOf(first), siteId))
    throw new MeshError('METADATA_INVALID', 'the peer does not have the root metadata of this site')
  let root = readRoot(first, 1, undefined)
  for (let version = 2; version <= MAX_ROOTS; version++) {
    const bytes = await fetch(`${version}.root.json`)
    if (bytes === undefined) break
    root = readRoot(bytes, version, root)
  }
  const { keys, roles } = root.signed
  return (roles.timestamp?.keyIDs ?? []).flatMap((id) => {
    const hex = keys[id]?.keyVal.public ?? ''
    return /^[0-9a-f]{64}$/.test(hex) ? [peerIdOf(Buffer.from(hex, 'hex'))] : []
  })
}

type Json = Parameters<typeof Metadata.fromJSON>[1]
/** The rest is looked at by the TUF library. */
const isJson: Check<Json> = (value): value is Json => isRecord(value)

function readRoot(bytes: Uint8Array, version: number, before: Metadata<Root> | undefined): Metadata<Root> {
  try {
    const root = Metadata.fromJSON(MetadataKind.Root, readJson('the root metadata', isJson, bytes))
    before?.verifyDelegate(MetadataKind.Root, root)
    root.verifyDelegate(MetadataKind.Root, root)
    if (root.signed.version !== version) throw new Error(`it has version ${root.signed.version}`)
    return root
  } catch (cause) {
    if (isMeshError(cause)) throw cause
    throw new MeshError('METADATA_INVALID', `root metadata ${version} of the peer was refused`, { cause })
  }
}
