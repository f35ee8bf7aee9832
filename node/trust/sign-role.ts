import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { canonicalize } from '@tufjs/canonical-json'
import { Metadata, MetaFile, type Root, type Snapshot, TargetFile, type Targets, type Timestamp } from '@tufjs/models'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { type SiteKey, type SiteRole, signBy } from './site-keys.ts'
import { MEMBERS_ROLE, type SignedRoles } from './trusted-view.ts'

const DAY_MS = 24 * 3600 * 1000
/** For how long what a role signs is valid; milliseconds. The master signs anew when half of it is over. */
export const LIFE_MS: Readonly<Record<SiteRole, number>> = {
  root: 3650 * DAY_MS,
  targets: 1825 * DAY_MS,
  [MEMBERS_ROLE]: 365 * DAY_MS,
  snapshot: 365 * DAY_MS,
  timestamp: 30 * DAY_MS,
}
const SPEC_VERSION = '1.0.33'

/** What the signed part of every role has. `now`: Unix ms. */
export function base(
  role: SiteRole,
  version: number,
  now: number,
): { version: number; specVersion: string; expires: string } {
  // TUF times have whole seconds.
  const expires = `${new Date(now + LIFE_MS[role]).toISOString().slice(0, 19)}Z`
  return { version, specVersion: SPEC_VERSION, expires }
}

/** When the newest metadata was signed, by the clock of the master then; Unix ms. */
export function signedAt({ timestamp }: SignedRoles): number {
  return Date.parse(timestamp.signed.expires) - LIFE_MS.timestamp
}

/** Signs a role with these keys into its file, and returns how the role above names it. */
export async function writeRole(
  scratch: string,
  name: string,
  signed: Root | Targets | Snapshot | Timestamp,
  keys: readonly SiteKey[],
): Promise<MetaFile> {
  const metadata = new Metadata(signed)
  for (const key of keys) metadata.sign((data) => signBy(key, data))
  const bytes = Buffer.from(canonicalize(metadata.toJSON()))
  await writeFile(join(scratch, `${name}.json`), bytes)
  return new MetaFile({ version: signed.version, length: bytes.byteLength, hashes: { sha256: toHex(digestOf(bytes)) } })
}

/** Puts a target into a generation, and returns how a role names it. */
export async function addTarget(scratch: string, path: string, bytes: Uint8Array): Promise<TargetFile> {
  const sha256 = toHex(digestOf(bytes))
  await writeFile(join(scratch, 'targets', sha256), bytes)
  return new TargetFile({ path, length: bytes.byteLength, hashes: { sha256 } })
}
