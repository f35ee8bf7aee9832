/**
 * The room `site`: the keys of the site.
 * show-site says who signs what, until when, and what is to be done about it. backup writes a master into one sealed file, and makes one of it.
 * change-keys gives roles other keys, take-over makes another machine the master, and carry-metadata carries what is signed by stick.
 */

import { toHex } from '../../../protocol/digest.ts'
import type { Role } from '../../trust/members.ts'
import { LIFE_MS } from '../../trust/sign-role.ts'
import { keysOf, SITE_ROLES, SiteKeys, type SiteRole } from '../../trust/site-keys.ts'
import { isPrefixRole, type PrefixRole, type SignedRoles } from '../../trust/trusted-view.ts'
import { Machine } from '../machine/machine.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { SOON_PART } from './limits.ts'

/** One role of the signed metadata. */
interface RoleShown {
  readonly role: SiteRole | PrefixRole
  /** What it signs, in a few words. */
  readonly signs: string
  readonly version: number
  /** ISO 8601. */
  readonly expires: string
  /** `soon`: less than a quarter of its life is left. */
  readonly state: 'valid' | 'soon' | 'expired'
  /** How many of its keys must sign. */
  readonly threshold: number
  /** Its keys by their ids (64 hexadecimal digits); `here`: whether the private key is in this state directory. */
  readonly keys: readonly { readonly id: string; readonly here: boolean }[]
}

/** Result of `mesh site show`. */
export interface SiteShown {
  readonly event: 'site'
  readonly site: string
  readonly siteId: string
  /** This machine. */
  readonly name: string
  readonly role: Role
  /** Who signs for the site, as the member list says. */
  readonly masters: readonly { readonly name: string; readonly id: string }[]
  readonly members: number
  readonly roles: readonly RoleShown[]
  /** Ids of keys that are here and sign nothing. */
  readonly unused: readonly string[]
  /** What is to be done, most urgent first; empty if nothing is. */
  readonly advice: readonly string[]
}

const SIGNS: Readonly<Record<SiteRole, string>> = {
  root: 'which keys each role has',
  targets: 'releases, layout of disks',
  snapshot: 'which versions go together',
  timestamp: 'what is the newest',
  members: 'the member list',
}

/** Who signs what for the site of this machine, until when, and what expires soon. Errors: those of {@link Machine.read}. */
export async function showSite(stateDir: string, configured?: ConfiguredMachine, now = Date.now()): Promise<SiteShown> {
  const machine = await Machine.read(stateDir, configured)
  try {
    const { trust, state, config } = machine
    const [roles, keys] = [await trust.roles(), await SiteKeys.load(state.path('keys'))]
    const shown = [...SITE_ROLES, ...roles.delegated.keys()].map((role) => describeRole(role, roles, keys, now))
    const named = new Set(shown.flatMap((role) => role.keys.map(({ id }) => id)))
    const { members } = trust.view()
    return {
      event: 'site',
      site: config.site,
      siteId: toHex(trust.siteId),
      name: config.name,
      role: config.role,
      masters: members.filter(({ role }) => role === 'master').map(({ name, id }) => ({ name, id })),
      members: members.length,
      roles: shown,
      unused: keys.stored.filter((id) => !named.has(id)),
      advice: adviceOn(shown, config.role === 'master'),
    }
  } finally {
    await machine.close()
  }
}

function describeRole(role: SiteRole | PrefixRole, roles: SignedRoles, keys: SiteKeys, now: number): RoleShown {
  const { version, expires } = isPrefixRole(role) ? roles.delegated.get(role)!.signed : roles[role].signed
  const { keys: named, threshold } = keysOf(roles, role)!
  const leftMs = Date.parse(expires) - now
  const state =
    leftMs <= 0 ? 'expired' : leftMs < LIFE_MS[isPrefixRole(role) ? 'targets' : role] * SOON_PART ? 'soon' : 'valid'
  const shown = named.map(({ keyID: id }) => ({ id, here: keys.stored.includes(id) }))
  const signs = isPrefixRole(role) ? `releases of ${role.slice('images-'.length)}/…` : SIGNS[role]
  return { role, signs, version, expires, state, threshold, keys: shown }
}

function adviceOn(shown: readonly RoleShown[], isMaster: boolean): string[] {
  const due = [...shown.filter(({ state }) => state === 'expired'), ...shown.filter(({ state }) => state === 'soon')]
  return due.map(({ role, state, keys, threshold }) => {
    const what = `what the ${role} role has signed ${state === 'expired' ? 'has expired' : 'expires soon'}`
    if (!isMaster) return `${what}: start the master of the site, which signs it anew`
    const isHere = keys.filter(({ here }) => here).length >= threshold
    if (isHere && role !== 'root' && !isPrefixRole(role))
      return `${what}: start \`mesh up\` here, which signs it anew by itself`
    return `${what}: \`mesh site renew ${role}${isHere ? '' : ' --key FILE'}\``
  })
}
