import { canonicalize } from '@tufjs/canonical-json'
import { MAX_MEMBERS } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'

/** One machine that may speak the mesh protocols. */
export interface Member {
  /** Peer id. */
  readonly id: string
  /** Unique in the site; see {@link isMachineName}. */
  readonly name: string
  readonly role: 'master' | 'machine'
  /** Name of the site (LAN) the machine stands in. */
  readonly site: string
  /** When it was enrolled, ISO 8601. */
  readonly added: string
}

/** Like a host name: letters, digits, dots, dashes and underscores, at most 63 characters. */
export function isMachineName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text)
}

/** Canonical JSON of the member list, format 1. */
export function encodeMembers(members: readonly Member[]): Uint8Array {
  const list = members.map(({ id, name, role, site, added }) => ({ id, name, role, site, added }))
  return Buffer.from(canonicalize({ format: 1, members: list }))
}

/** The inverse of {@link encodeMembers}. Errors: METADATA_INVALID. */
export function decodeMembers(bytes: Uint8Array): Member[] {
  let json: { format?: unknown; members?: unknown }
  try {
    json = JSON.parse(Buffer.from(bytes).toString('utf8')) as typeof json
  } catch (cause) {
    throw new MeshError('METADATA_INVALID', 'the member list is no JSON', { cause })
  }
  if (json?.format !== 1 || !Array.isArray(json.members) || json.members.length > MAX_MEMBERS) {
    throw new MeshError('METADATA_INVALID', 'the member list has an unknown format')
  }
  const members = json.members as Member[]
  for (const member of members) {
    const texts = [member?.id, member?.site, member?.added]
    const known = member?.role === 'master' || member?.role === 'machine'
    if (!known || texts.some((text) => typeof text !== 'string') || !isMachineName(String(member.name))) {
      throw new MeshError('METADATA_INVALID', 'the member list holds a damaged entry')
    }
  }
  const [ids, names] = [new Set(members.map((m) => m.id)), new Set(members.map((m) => m.name))]
  if (ids.size !== members.length || names.size !== members.length) {
    throw new MeshError('METADATA_INVALID', 'the member list names a machine twice')
  }
  return members
}
