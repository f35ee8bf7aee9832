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

const KEYS = ['added', 'id', 'name', 'role', 'site'].join()
const MAX_TEXT_CHARACTERS = 128

/** The inverse of {@link encodeMembers}; accepts nothing else. Errors: METADATA_INVALID. */
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
  if (!json.members.every(isMember)) throw new MeshError('METADATA_INVALID', 'the member list holds a damaged entry')
  const members: Member[] = json.members
  const [ids, names] = [new Set(members.map((m) => m.id)), new Set(members.map((m) => m.name))]
  if (ids.size !== members.length || names.size !== members.length) {
    throw new MeshError('METADATA_INVALID', 'the member list names a machine twice')
  }
  return members
}

function isMember(value: unknown): value is Member {
  if (typeof value !== 'object' || value === null || Object.keys(value).sort().join() !== KEYS) return false
  const { id, name, role, site, added } = value as Record<string, unknown>
  return (
    (role === 'master' || role === 'machine') &&
    typeof name === 'string' &&
    isMachineName(name) &&
    [id, site, added].every(isShortText)
  )
}

/** These are shown to people, on terminals. */
function isShortText(text: unknown): text is string {
  return typeof text === 'string' && text.length > 0 && text.length <= MAX_TEXT_CHARACTERS && !/\p{C}/u.test(text)
}
