import { canonicalize } from '@tufjs/canonical-json'
import { MAX_MAC_ADDRESSES, MAX_MEMBERS } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'

/**
 * What a member may do. A master (there is one) publishes. An operator commands the others and reads their receipts. A
 * machine serves and fetches only.
 */
export type Role = 'master' | 'operator' | 'machine'

/** What an invitation says about the machine that joins by it. */
export interface Place {
  readonly role: Exclude<Role, 'master'>
  readonly site: string
  readonly group: string
}

/** One machine that may speak the mesh protocols. */
export interface Member {
  /** Peer id. */
  readonly id: string
  /** Unique in the site; see {@link isMachineName}. */
  readonly name: string
  readonly role: Role
  /** Name of the site (LAN) the machine stands in. */
  readonly site: string
  /** Name of the machines that are reset together, such as a room; by default the site. */
  readonly group: string
  /** Addresses of its network cards, by which it can be woken, as `02:00:5e:10:00:01`; at most MAX_MAC_ADDRESSES. */
  readonly mac: readonly string[]
  /** When it was enrolled, ISO 8601. */
  readonly added: string
}

/** Like a host name: letters, digits, dots, dashes and underscores, at most 63 characters. */
export function isMachineName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text)
}

/** Whether a text is a MAC address as members are listed with: `aa:bb:cc:00:11:22`, in lower case. */
export function isMacAddress(text: string): boolean {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text)
}

/** Name of a site or a group: what a terminal can show, at most 128 characters. */
export function isPlaceName(text: unknown): text is string {
  return typeof text === 'string' && text.length > 0 && text.length <= MAX_TEXT_CHARACTERS && !/\p{C}/u.test(text)
}

/** Whether a member may command others and read their receipts. */
export function mayOperate(member: Member | undefined): boolean {
  return member?.role === 'master' || member?.role === 'operator'
}

/** Canonical JSON of the member list, format 2 (docs/PROTOCOL.md). */
export function encodeMembers(members: readonly Member[]): Uint8Array {
  const list = members.map(({ id, name, role, site, group, mac, added }) => ({
    id,
    name,
    role,
    site,
    group,
    mac,
    added,
  }))
  return Buffer.from(canonicalize({ format: 2, members: list }))
}

const KEYS_1 = ['added', 'id', 'name', 'role', 'site'].join()
const KEYS_2 = ['added', 'group', 'id', 'mac', 'name', 'role', 'site'].join()
const MAX_TEXT_CHARACTERS = 128

/** The inverse of {@link encodeMembers}; also reads format 1, which had neither groups nor operators. Errors: METADATA_INVALID. */
export function decodeMembers(bytes: Uint8Array): Member[] {
  let json: { format?: unknown; members?: unknown }
  try {
    json = JSON.parse(Buffer.from(bytes).toString('utf8')) as typeof json
  } catch (cause) {
    throw new MeshError('METADATA_INVALID', 'the member list is no JSON', { cause })
  }
  if ((json?.format !== 1 && json?.format !== 2) || !Array.isArray(json.members) || json.members.length > MAX_MEMBERS) {
    throw new MeshError('METADATA_INVALID', 'the member list has an unknown format')
  }
  const list: unknown[] = json.format === 1 ? json.members.map(withGroup) : json.members
  if (!list.every(isMember)) throw new MeshError('METADATA_INVALID', 'the member list holds a damaged entry')
  const members: Member[] = list
  const [ids, names] = [new Set(members.map((m) => m.id)), new Set(members.map((m) => m.name))]
  if (ids.size !== members.length || names.size !== members.length) {
    throw new MeshError('METADATA_INVALID', 'the member list names a machine twice')
  }
  return members
}

/** Makes an entry of format 2 of one of format 1; returns anything else unchanged. */
function withGroup(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Object.keys(value).sort().join() !== KEYS_1) return undefined
  const { role, site } = value as Record<string, unknown>
  return role === 'operator' ? undefined : { ...value, group: site, mac: [] }
}

function isMember(value: unknown): value is Member {
  if (typeof value !== 'object' || value === null || Object.keys(value).sort().join() !== KEYS_2) return false
  const { id, name, role, site, group, mac, added } = value as Record<string, unknown>
  return (
    (role === 'master' || role === 'operator' || role === 'machine') &&
    typeof name === 'string' &&
    isMachineName(name) &&
    Array.isArray(mac) &&
    mac.length <= MAX_MAC_ADDRESSES &&
    mac.every((address) => typeof address === 'string' && isMacAddress(address)) &&
    // These texts are shown to people, on terminals.
    [id, site, group, added].every(isPlaceName)
  )
}
