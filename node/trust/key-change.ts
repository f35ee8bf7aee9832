import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Key, Metadata, Root, Targets } from '@tufjs/models'
import type { Delegations } from '@tufjs/models/dist/delegations.js'
import { DelegatedRole, Role } from '@tufjs/models/dist/role.js'
import { MeshError } from '../../protocol/errors.ts'
import { base, writeRole } from './sign-role.ts'
import type { RoleKeys, SiteKey, SiteKeys, SiteRole } from './site-keys.ts'
import { MEMBERS_ROLE, type PrefixRole, prefixPath, type SignedRoles } from './trusted-view.ts'

/** Which keys roles are to have. */
export type KeyChanges = Readonly<Partial<Record<SiteRole, RoleKeys>>>

/** Gives roles other keys, in what was read of a generation. Returns the roles that have to be signed anew for that. */
export function giveKeys(roles: SignedRoles, changes: KeyChanges): SiteRole[] {
  const changed = new Set<SiteRole>()
  for (const [role, given] of Object.entries(changes) as [SiteRole, RoleKeys][]) {
    changed.add(role)
    if (role === MEMBERS_ROLE) {
      giveDelegated(roles.targets, given)
      changed.add('targets')
    } else {
      giveTopLevel(roles.root.signed, role, given)
      changed.add('root')
    }
  }
  return [...changed]
}

function giveTopLevel(root: Root, role: SiteRole, { keys, threshold }: RoleKeys): void {
  const { unrecognizedFields } = root.roles[role] ?? {}
  const extra = unrecognizedFields === undefined ? {} : { unrecognizedFields }
  root.roles[role] = new Role({ keyIDs: keys.map(({ keyID }) => keyID), threshold, ...extra })
  replaceKeys(root.keys, keys, Object.values(root.roles))
}

function giveDelegated(targets: SignedRoles['targets'], { keys, threshold }: RoleKeys): void {
  const { delegations } = targets.signed
  const before = delegations?.roles?.[MEMBERS_ROLE]
  if (delegations?.roles === undefined || before === undefined) throw new Error('targets delegate no member list')
  const { name, terminating, paths = [] } = before
  const role = new DelegatedRole({ name, terminating, paths, keyIDs: keys.map(({ keyID }) => keyID), threshold })
  delegations.roles[MEMBERS_ROLE] = role
  replaceKeys(delegations.keys as Delegations['keys'], keys, Object.values(delegations.roles))
}

/**
 * Delegates the images of a prefix to keys, or gives them other keys, in what was read of a generation. What the role has signed stays.
 * Returns the roles that have to be signed anew.
 */
export function delegatePrefix(
  roles: SignedRoles,
  role: PrefixRole,
  { keys, threshold }: RoleKeys,
  now: number,
): (SiteRole | PrefixRole)[] {
  const { targets, snapshot, delegated } = roles
  const all = targets.signed.delegations
  if (all?.roles === undefined) throw new Error('targets delegate nothing')
  const keyIDs = keys.map(({ keyID }) => keyID)
  all.roles[role] = new DelegatedRole({ name: role, keyIDs, threshold, terminating: true, paths: [prefixPath(role)] })
  replaceKeys(all.keys as Delegations['keys'], keys, Object.values(all.roles))
  if (!delegated.has(role)) {
    // A prefix that was delegated before goes on with its versions.
    const { version = 0 } = snapshot.signed.meta[`${role}.json`] ?? {}
    const empty = new Targets({ ...base('targets', Math.max(1, version), now), targets: {} })
    ;(delegated as Map<PrefixRole, Metadata<Targets>>).set(role, new Metadata(empty))
  }
  return ['targets', role]
}

/** Takes the images of a prefix back: what the role has signed is signed by targets from now on. Returns the roles that have to be signed anew. */
export function endDelegation({ targets, delegated }: SignedRoles, role: PrefixRole): SiteRole[] {
  const all = targets.signed.delegations
  const before = all?.roles?.[role]
  if (all?.roles === undefined || before === undefined)
    throw new MeshError('USAGE', `the site delegates no images to the role ${role}`)
  for (const target of Object.values(delegated.get(role)?.signed.targets ?? {}))
    if (!(target.path in targets.signed.targets) && before.isDelegatedPath(target.path))
      targets.signed.addTarget(target)
  delete all.roles[role]
  replaceKeys(all.keys as Delegations['keys'], [], Object.values(all.roles))
  return ['targets']
}

/** Adds keys, and takes out those that no role names any more. */
function replaceKeys(all: Record<string, Key>, added: readonly Key[], roles: readonly Pick<Role, 'keyIDs'>[]): void {
  for (const key of added) all[key.keyID] = key
  const named = new Set(roles.flatMap(({ keyIDs }) => keyIDs))
  for (const id of Object.keys(all)) if (!named.has(id)) delete all[id]
}

/**
 * Signs the next version of the root by as many of the keys `before` as had to sign, and of the new ones (The Update Framework, section
 * 6.1). Errors: SITE_KEY_MISSING.
 */
export async function signRoot(
  scratch: string,
  { signed }: Metadata<Root>,
  { keys, before, after, now }: { keys: SiteKeys; before: RoleKeys; after: RoleKeys; now: number },
): Promise<void> {
  const next = new Root({
    ...base('root', signed.version + 1, now),
    keys: signed.keys,
    roles: signed.roles,
    consistentSnapshot: signed.consistentSnapshot,
    unrecognizedFields: signed.unrecognizedFields,
  })
  const signers = new Map<string, SiteKey>()
  for (const named of [before, after]) for (const own of keys.signers('root', named)) signers.set(own.key.keyID, own)
  await writeRole(scratch, 'root', next, [...signers.values()])
  await copyFile(join(scratch, 'root.json'), join(scratch, `${next.version}.root.json`))
}
