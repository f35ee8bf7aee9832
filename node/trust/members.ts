import { canonicalize } from '@tufjs/canonical-json'
import {
  MAX_MAC_ADDRESSES,
  MAX_MEMBERS,
  MAX_METADATA_FILE_BYTES,
  MAX_REMOVED,
  MAX_TEXT_BYTES,
} from '../../protocol/constants.ts'
import { readDocument } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { type Check, list, literal, natural, object, optional, text, time, which } from '../../protocol/json-shape.ts'
import { isMachineName, isPlaceName } from '../../protocol/names.ts'

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
  /** Serial number of the computer, if it is known: it tells machines apart that share the network card of an adapter. */
  readonly serial?: string | undefined
}

/** A machine that was taken out of the list. Others let it hear that, and nothing else; invitations from before do not let it in. */
export interface RemovedMember {
  /** Peer id. */
  readonly id: string
  /** Its last name. */
  readonly name: string
  /** When it was removed, ISO 8601, by the clock of the master. */
  readonly at: string
}

/** Whether a text is a MAC address as members are listed with: `aa:bb:cc:00:11:22`, in lower case. */
export function isMacAddress(text: string): boolean {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text)
}

/** Whether a member may command others and read their receipts. */
export function mayOperate(member: Member | undefined): boolean {
  return member?.role === 'master' || member?.role === 'operator'
}

/**
 * Canonical JSON of the member list, format 2 (docs/PROTOCOL.md), with what later versions have added to its entries. It names the last
 * MAX_REMOVED of the machines that were removed, and none of them if there is no room.
 */
export function encodeMembers(members: readonly Member[], removed: readonly RemovedMember[] = []): Uint8Array {
  const alone = Buffer.from(canonicalize({ format: 2, members }))
  if (removed.length === 0) return alone
  const bytes = Buffer.from(canonicalize({ format: 2, members, removed: removed.slice(-MAX_REMOVED) }))
  return bytes.byteLength <= MAX_METADATA_FILE_BYTES ? bytes : alone
}

const isAddress: Check<string> = which(text(MAX_TEXT_BYTES), isMacAddress)
// These texts are shown to people, on terminals.
const isPlace: Check<string> = isPlaceName

/** Both formats: format 1 had neither groups nor network cards. */
const MEMBERS = {
  name: 'the member list',
  format: 2,
  shape: object({
    format: optional(natural()),
    members: list(
      object({
        id: isPlace,
        name: which(text(MAX_TEXT_BYTES), isMachineName),
        role: literal('master', 'operator', 'machine'),
        site: isPlace,
        group: optional(isPlace),
        mac: optional(list(isAddress, MAX_MAC_ADDRESSES)),
        added: isPlace,
        serial: optional(isPlace),
      }),
      MAX_MEMBERS,
    ),
    removed: optional(list(object({ id: isPlace, name: isPlace, at: time }), MAX_REMOVED)),
  }),
  fault: 'METADATA_INVALID',
} as const

/**
 * What a member list says; also one of format 1, which had neither groups nor operators. What a later version has added to an
 * entry stays with it. Errors: METADATA_INVALID, FORMAT_NEWER.
 */
export function decodeMembers(bytes: Uint8Array): Member[] {
  const { format = 1, members: entries } = readDocument(MEMBERS, bytes)
  const members = entries.map((entry): Member => {
    const { name, role, site, group, mac } = entry
    const isFull = group !== undefined && mac !== undefined
    if (format === 1 ? role === 'operator' : !isFull) throw damaged(`the entry of ${name} is none of format ${format}`)
    return { ...entry, group: group ?? site, mac: mac ?? [] }
  })
  const [ids, names] = [new Set(members.map((m) => m.id)), new Set(members.map((m) => m.name))]
  if (ids.size !== members.length || names.size !== members.length) throw damaged('it names a machine twice')
  return members
}

/** The machines that a member list says were removed, the last one at the end. Errors: METADATA_INVALID, FORMAT_NEWER. */
export function decodeRemoved(bytes: Uint8Array): readonly RemovedMember[] {
  return readDocument(MEMBERS, bytes).removed ?? []
}

function damaged(why: string): MeshError {
  return new MeshError('METADATA_INVALID', `the member list is damaged: ${why}`)
}
