import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { canonicalize } from '@tufjs/canonical-json'
import type { FetchMetadata } from '../../../node/trust/metadata-update.ts'

export type RoleName = 'root' | 'targets' | 'members' | 'snapshot' | 'timestamp'

/** The signed part of a role as plain JSON. */
export interface Signed {
  version: number
  expires: string
  targets: Record<string, { length: number; hashes: { sha256: string } }>
  meta: Record<string, { version: number; length?: number; hashes?: Record<string, string> }>
  keys: Record<string, unknown>
  roles: Record<RoleName, { keyids: string[]; threshold: number }>
  delegations: { keys: Record<string, unknown>; roles: { name: string; keyids: string[]; paths: string[] }[] }
}

export interface Forgery {
  /** Changes to roles, made after their version was raised by one. */
  readonly edit?: Partial<Record<RoleName, (signed: Signed) => void>>
  /** Keys to sign with instead of the site's own. */
  readonly keys?: Partial<Record<RoleName, readonly KeyObject[]>>
  /** Roles that are signed anew and not only if edited; snapshot and timestamp always are, unless `only` is set. */
  readonly only?: readonly RoleName[]
  /** Contents to serve as targets. */
  readonly targets?: readonly Uint8Array[]
}

/**
 * Whoever holds (some of) a site's keys: makes any metadata, as plain JSON and without the code under test. `base` is
 * what a peer served before; what comes back serves the forged files, and those of `base` under all other names.
 */
export async function forge(keysDir: string, base: FetchMetadata, forgery: Forgery): Promise<FetchMetadata> {
  const files = new Map<string, Uint8Array>((forgery.targets ?? []).map((bytes) => [`targets/${sha256(bytes)}`, bytes]))
  const load = async (name: string): Promise<Signed> => {
    const bytes = await base(name)
    if (bytes === undefined) throw new Error(`there is no ${name} to start from`)
    return (JSON.parse(Buffer.from(bytes).toString()) as { signed: Signed }).signed
  }
  const put = async (role: RoleName, signed: Signed, name: string): Promise<Uint8Array> => {
    const keys = forgery.keys?.[role] ?? [await siteKey(keysDir, role)]
    const data = Buffer.from(canonicalize(signed))
    const signatures = keys.map((key) => ({ keyid: keyId(key), sig: sign(undefined, data, key).toString('hex') }))
    const bytes = Buffer.from(canonicalize({ signatures, signed }))
    files.set(name, bytes)
    return bytes
  }
  const change = (role: RoleName, signed: Signed): Signed => {
    signed.version++
    forgery.edit?.[role]?.(signed)
    return signed
  }
  const isWanted = (role: RoleName): boolean => {
    const follows = role === 'snapshot' || role === 'timestamp'
    return (
      forgery.only?.includes(role) ??
      (follows || forgery.edit?.[role] !== undefined || forgery.keys?.[role] !== undefined)
    )
  }

  if (isWanted('root')) {
    let newest = 1
    while ((await base(`${newest + 1}.root.json`)) !== undefined) newest++
    const root = change('root', await load(`${newest}.root.json`))
    await put('root', root, `${newest + 1}.root.json`)
  }
  const timestamp = await load('timestamp.json')
  const snapshot = await load(`${timestamp.meta['snapshot.json']?.version}.snapshot.json`)
  for (const role of ['targets', 'members'] as const) {
    if (!isWanted(role)) continue
    const signed = change(role, await load(`${snapshot.meta[`${role}.json`]?.version}.${role}.json`))
    snapshot.meta[`${role}.json`] = named(signed, await put(role, signed, `${signed.version}.${role}.json`))
  }
  if (isWanted('snapshot')) {
    const signed = change('snapshot', snapshot)
    timestamp.meta['snapshot.json'] = named(signed, await put('snapshot', signed, `${signed.version}.snapshot.json`))
  }
  if (isWanted('timestamp')) await put('timestamp', change('timestamp', timestamp), 'timestamp.json')
  return async (name) => files.get(name) ?? (await base(name))
}

export function newKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey
}

export async function siteKey(keysDir: string, role: RoleName): Promise<KeyObject> {
  return createPrivateKey(await readFile(join(keysDir, `${role}.pem`)))
}

/** Puts `key` in the place of the keys of a role of a root. */
export function giveRole(root: Signed, role: RoleName, key: KeyObject): void {
  root.keys[keyId(key)] = publicPart(key)
  root.roles[role].keyids = [keyId(key)]
}

/** How a role names a target with this content. */
export function target(bytes: Uint8Array): { length: number; hashes: { sha256: string } } {
  return { length: bytes.byteLength, hashes: { sha256: sha256(bytes) } }
}

function named(signed: Signed, bytes: Uint8Array): Signed['meta'][string] {
  return { version: signed.version, ...target(bytes) }
}

function publicPart(key: KeyObject): object {
  const raw = Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x ?? '', 'base64url')
  return { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: raw.toString('hex') } }
}

function keyId(key: KeyObject): string {
  return sha256(Buffer.from(canonicalize(publicPart(key))))
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
