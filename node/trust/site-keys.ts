import { type KeyObject, sign } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { canonicalize } from '@tufjs/canonical-json'
import { Key, Signature } from '@tufjs/models'
import type { Role } from '@tufjs/models/dist/role.js'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { shortKeyId } from '../../protocol/key-code.ts'
import { fsyncDirectory, storageError, writeFileAtomic } from '../state/atomic-file.ts'
import { parseKey, rawPublicKey } from './machine-key.ts'
import { MEMBERS_ROLE, type SignedRoles } from './trusted-view.ts'

/** The roles of a site: those of The Update Framework, and `members`, to which targets delegates the member list. */
export const SITE_ROLES = ['root', 'targets', 'snapshot', 'timestamp', MEMBERS_ROLE] as const
/** One of {@link SITE_ROLES}. */
export type SiteRole = (typeof SITE_ROLES)[number]

/** A private key of a site, and how the metadata name it. */
export interface SiteKey {
  readonly key: Key
  readonly privateKey: KeyObject
}

/** Which keys a role has, and how many of them must sign. */
export interface RoleKeys {
  readonly keys: readonly Key[]
  readonly threshold: number
}

/** How the metadata name an Ed25519 private key: its id is the SHA-256 of the canonical JSON of its public half. */
export function siteKeyOf(privateKey: KeyObject): SiteKey {
  const content = { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: toHex(rawPublicKey(privateKey)) } }
  const keyID = toHex(digestOf(Buffer.from(canonicalize(content))))
  const key = new Key({ keyID, keyType: content.keytype, scheme: content.scheme, keyVal: content.keyval })
  return { key, privateKey }
}

/** A signature of this key. */
export function signBy({ key: { keyID }, privateKey }: SiteKey, data: Buffer): Signature {
  return new Signature({ keyID, sig: sign(undefined, data, privateKey).toString('hex') })
}

/** The keys of a role, as the role above it names them; undefined if it names none. */
export function keysOf({ root, targets }: Pick<SignedRoles, 'root' | 'targets'>, role: string): RoleKeys | undefined {
  const { roles, keys } = root.signed
  const { delegations } = targets.signed
  const above: readonly [Role | undefined, Record<string, Key>] =
    role in roles ? [roles[role], keys] : [delegations?.roles?.[role], delegations?.keys ?? {}]
  const [named, all] = above
  if (named === undefined) return undefined
  return { keys: named.keyIDs.flatMap((id) => all[id] ?? []), threshold: named.threshold }
}

/**
 * The private keys of a site that are in one folder (mode 0700; PEM files of mode 0600), and those that were given beside them. Which
 * role a key signs for is what the metadata say, not the name of its file.
 */
export class SiteKeys {
  readonly #directory: string
  readonly #byId: ReadonlyMap<string, { readonly own: SiteKey; readonly path?: string }>

  private constructor(directory: string, byId: ReadonlyMap<string, { readonly own: SiteKey; readonly path?: string }>) {
    this.#directory = directory
    this.#byId = byId
  }

  /** Reads the keys of a folder, none if there is no such folder. Errors: STATE_CORRUPT, STATE_UNWRITABLE. */
  static async load(directory: string, given: readonly SiteKey[] = []): Promise<SiteKeys> {
    const names = await readdir(directory).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return []
      throw storageError(error, directory)
    })
    const byId = new Map<string, { readonly own: SiteKey; readonly path?: string }>()
    for (const own of given) byId.set(own.key.keyID, { own })
    for (const name of names.filter((one) => one.endsWith('.pem')).sort()) {
      const path = join(directory, name)
      const pem = await readFile(path, 'utf8').catch((error: unknown) => {
        throw storageError(error, path)
      })
      const own = siteKeyOf(parseKey(pem, path))
      byId.set(own.key.keyID, { own, path })
    }
    return new SiteKeys(directory, byId)
  }

  /** Whether there is no key at all. */
  get isEmpty(): boolean {
    return this.#byId.size === 0
  }

  /** Ids of the keys that are in the folder. */
  get stored(): readonly string[] {
    return [...this.#byId].flatMap(([id, { path }]) => (path === undefined ? [] : [id]))
  }

  /** Those of these keys that are here. */
  among(keys: readonly Pick<Key, 'keyID'>[]): SiteKey[] {
    return keys.flatMap(({ keyID }) => this.#byId.get(keyID)?.own ?? [])
  }

  /** Whether as many of a role's keys are here as must sign. */
  canSign(named: RoleKeys | undefined): boolean {
    return named !== undefined && this.among(named.keys).length >= named.threshold
  }

  /** Those of a role's keys that are here. Errors: SITE_KEY_MISSING if they are fewer than must sign. */
  signers(role: string, named: RoleKeys | undefined): SiteKey[] {
    const { keys, threshold } = named ?? { keys: [], threshold: 1 }
    const here = this.among(keys)
    if (here.length >= threshold) return here
    const which = keys.map(({ keyID }) => shortKeyId(keyID)).join(', ')
    const needed = threshold === 1 ? 'a key' : `${threshold} keys`
    throw new MeshError(
      'SITE_KEY_MISSING',
      `the ${role} role is signed by ${needed} of: ${which}; ${here.length === 0 ? 'none' : here.length} of them ${here.length > 1 ? 'are' : 'is'} here`,
    )
  }

  /** Stores a key durably, beside those that are there. Errors: DISK_FULL, STATE_UNWRITABLE. */
  async add({ key, privateKey }: SiteKey, role: SiteRole): Promise<void> {
    const path = join(this.#directory, `${role}.${shortKeyId(key.keyID)}.pem`)
    await writeFileAtomic(path, privateKey.export({ format: 'pem', type: 'pkcs8' }), 0o600)
  }

  /** Removes keys from the folder, durably. Errors: STATE_UNWRITABLE. */
  async remove(keyIds: readonly string[]): Promise<void> {
    const paths = keyIds.flatMap((id) => this.#byId.get(id)?.path ?? [])
    if (paths.length === 0) return
    try {
      for (const path of paths) await rm(path, { force: true })
      await fsyncDirectory(this.#directory)
    } catch (error) {
      throw storageError(error, this.#directory)
    }
  }
}
