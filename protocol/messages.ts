import {
  DIGEST_SIZE_BYTES,
  MAX_ADDRESSES_PER_PEER,
  MAX_FINDS_PER_MESSAGE,
  MAX_GRANULE_SET_BYTES,
  MAX_HELD_IMAGES,
  MAX_MAC_ADDRESSES,
  MAX_MEMBERS,
  MAX_TWINS,
  MAX_WANTS_PER_MESSAGE,
} from './constants.ts'
import type { Digest } from './digest.ts'
import {
  type EnrolReply,
  type EnrolRequest,
  encodeEnrolReply,
  encodeEnrolRequest,
  readEnrolReply,
  readEnrolRequest,
} from './enrol-messages.ts'
import { MeshError } from './errors.ts'
import {
  encodeHeld,
  encodePeer,
  encodeRequest,
  encodeRunning,
  encodeSignedAddresses,
  encodeVersions,
  type HeldImage,
  type MetadataVersions,
  type PeerAddresses,
  type RunningNode,
  readHeld,
  readPeer,
  readRequest,
  readRunning,
  readSignedAddresses,
  readVersions,
  type SignedAddresses,
  type WantRequest,
} from './message-parts.ts'
import { RangeSet } from './ranges.ts'
import { violation, WireReader } from './wire-reader.ts'
import { encodeRuns, given, limited, readIds, readPacked, readRuns, required } from './wire-runs.ts'
import { WireWriter } from './wire-writer.ts'

/** The grammar of the mesh protocols; docs/PROTOCOL.md gives the field numbers and who may send what when. */

/** Any message of the mesh protocols, decoded. */
export type Message =
  | {
      readonly type: 'hello'
      readonly versionMin: number
      readonly versionMax: number
      readonly siteId: Digest
      readonly name: string
      readonly metadata: MetadataVersions
      readonly held: readonly HeldImage[]
      /** Bytes of open requests the sender, as a server, grants the other side. */
      readonly creditBytes: number
      readonly addresses: readonly string[]
      /** What the sender's clock says, Unix ms; absent if it does not tell. */
      readonly clock?: number | undefined
      /** Which process speaks; absent from earlier versions. */
      readonly running?: RunningNode | undefined
      /** All that run with the key of whoever this is said to, if there are several. */
      readonly twins?: readonly RunningNode[] | undefined
      /** Its addresses once more, signed, for others to be told; absent from earlier versions. */
      readonly record?: SignedAddresses | undefined
    }
  | { readonly type: 'have'; readonly root: Digest; readonly gained: RangeSet; readonly lost: RangeSet }
  | {
      readonly type: 'want'
      readonly requests: readonly WantRequest[]
      /** Answers of at least so many bytes may come compressed; 0: none. */
      readonly packFrom: number
    }
  | {
      readonly type: 'block'
      readonly id: number
      /** Coded set of the wanted granules that are zeros and left out of the payload. */
      readonly zeros: Uint8Array
      /** Coded set of the granules that are left out because the client has them. */
      readonly kept?: Uint8Array | undefined
      readonly payload: Uint8Array
      readonly coding: Coding
      /** Microseconds that compressing took; 0 if it is plain. */
      readonly packedUs: number
    }
  | { readonly type: 'missing'; readonly ids: readonly number[] }
  | { readonly type: 'cancel'; readonly ids: readonly number[] }
  | { readonly type: 'busy'; readonly ids: readonly number[]; readonly retryAfterMs: number }
  | {
      readonly type: 'find'
      readonly id: number
      /** Digests of blocks that the client would like to know who has, 32 bytes each. */
      readonly payload: Uint8Array
    }
  | {
      readonly type: 'found'
      readonly id: number
      /** A bit for each digest of the question, least significant first; zeros at the end are left out. */
      readonly found: Uint8Array
    }
  | {
      /** The client fetches items of this tree level over the uplink, or no longer does (`over`). */
      readonly type: 'fetching'
      readonly root: Digest
      readonly level: number
      /** What it has asked for there, and others do not know to be here. */
      readonly claimed: RangeSet
      readonly over: boolean
    }
  | { readonly type: 'announce'; readonly metadata: MetadataVersions }
  | { readonly type: 'holds'; readonly held: readonly HeldImage[] }
  | { readonly type: 'peers'; readonly peers: readonly PeerAddresses[] }
  | {
      readonly type: 'join-request'
      readonly siteId: Digest
      readonly secret: Uint8Array
      readonly name: string
      /** Addresses of the machine's network cards. */
      readonly mac: readonly string[]
      /** Ask only whether the request would be granted. */
      readonly check?: boolean | undefined
    }
  | {
      readonly type: 'join-reply'
      readonly error?: { readonly code: string; readonly message: string }
      readonly site: string
      /** What the machine becomes; absent from the replies of earlier versions. */
      readonly role?: string | undefined
      /** Nobody was enrolled: it was only asked. */
      readonly checked?: boolean | undefined
    }
  | EnrolRequest
  | EnrolReply
  | { readonly type: 'file-request'; readonly name: string }
  | { readonly type: 'operate'; readonly payload: Uint8Array }
  | { readonly type: 'file-reply'; readonly found: boolean; readonly payload: Uint8Array }

/** How the payload of a block is coded: as it is, or with zstd (RFC 8878). */
export const CODING = { plain: 0, zstd: 1 } as const
/** A number of {@link CODING}. */
export type Coding = (typeof CODING)[keyof typeof CODING]

/** The name of a message. */
type MessageType = Message['type']

/** The header is one protobuf field: its number is the message's kind, its value the message. */
const KINDS = {
  hello: 1,
  have: 2,
  want: 3,
  block: 4,
  missing: 5,
  cancel: 6,
  busy: 7,
  announce: 8,
  peers: 9,
  holds: 10,
  find: 11,
  found: 12,
  fetching: 13,
  'join-request': 16,
  'join-reply': 17,
  'enrol-request': 18,
  'enrol-reply': 19,
  'file-request': 24,
  'file-reply': 25,
  operate: 32,
} as const satisfies Record<MessageType, number>

const TYPES = new Map<number, MessageType>(Object.entries(KINDS).map(([type, kind]) => [kind, type as MessageType]))

/** Whose frames carry a payload. */
const WITH_PAYLOAD: ReadonlySet<MessageType> = new Set(['block', 'find', 'file-reply', 'operate'])

/** The header of a frame; a block's or file's content travels as the frame's payload. */
export function encodeMessage(message: Message): Uint8Array {
  const writer = new WireWriter()
  writer.group(KINDS[message.type], message, encodeFields)
  return writer.finish()
}

/** The inverse of {@link encodeMessage}. `payload` is kept, not copied. Errors: PROTOCOL_VIOLATION, and no other. */
export function decodeMessage(header: Uint8Array, payload: Uint8Array): Message {
  try {
    const reader = new WireReader(header)
    const kind = reader.tag()
    const body = reader.nested()
    if (!reader.atEnd) throw violation('bytes follow the message')
    const type = TYPES.get(kind)
    if (type === undefined) throw violation(`message kind ${kind} is not known`)
    if (payload.byteLength > 0 && !WITH_PAYLOAD.has(type)) throw violation(`${type} carries a payload`)
    return DECODERS[type](body, payload)
  } catch (error) {
    if (error instanceof MeshError) throw error
    throw new MeshError('PROTOCOL_VIOLATION', 'a message is not well-formed', { cause: error })
  }
}

function encodeFields(w: WireWriter, m: Message): void {
  switch (m.type) {
    case 'hello':
      w.uint(1, m.versionMin)
      w.uint(2, m.versionMax)
      w.bytes(3, m.siteId)
      w.text(4, m.name)
      w.group(5, m.metadata, encodeVersions)
      for (const held of m.held) w.group(6, held, encodeHeld)
      w.uint(7, m.creditBytes)
      for (const address of m.addresses) w.text(8, address)
      if (m.clock !== undefined) w.uint(9, m.clock)
      if (m.running !== undefined) w.group(10, m.running, encodeRunning)
      for (const twin of m.twins ?? []) w.group(11, twin, encodeRunning)
      if (m.record !== undefined) w.group(12, m.record, encodeSignedAddresses)
      break
    case 'have':
      w.bytes(1, m.root)
      encodeRuns(w, 2, m.gained)
      encodeRuns(w, 3, m.lost)
      break
    case 'want':
      for (const request of m.requests) w.group(1, request, encodeRequest)
      w.uint(2, m.packFrom)
      break
    case 'block':
      w.uint(1, m.id)
      w.bytes(2, m.zeros)
      w.uint(3, m.coding)
      w.uint(4, m.packedUs)
      if (m.kept !== undefined) w.bytes(5, m.kept)
      break
    case 'missing':
    case 'cancel':
      w.varints(1, m.ids)
      break
    case 'busy':
      w.varints(1, m.ids)
      w.uint(2, m.retryAfterMs)
      break
    case 'find':
      w.uint(1, m.id)
      break
    case 'found':
      w.uint(1, m.id)
      w.bytes(2, m.found)
      break
    case 'fetching':
      w.bytes(1, m.root)
      w.uint(2, m.level)
      encodeRuns(w, 3, m.claimed)
      w.uint(4, m.over ? 1 : 0)
      break
    case 'announce':
      w.group(1, m.metadata, encodeVersions)
      break
    case 'holds':
      for (const held of m.held) w.group(1, held, encodeHeld)
      break
    case 'peers':
      for (const peer of m.peers) w.group(1, peer, encodePeer)
      break
    case 'join-request':
      w.bytes(1, m.siteId)
      w.bytes(2, m.secret)
      w.text(3, m.name)
      for (const address of m.mac) w.text(4, address)
      if (m.check === true) w.uint(5, 1)
      break
    case 'join-reply':
      if (m.error !== undefined) {
        w.text(1, m.error.code)
        w.text(2, m.error.message)
      }
      w.text(3, m.site)
      if (m.role !== undefined) w.text(4, m.role)
      if (m.checked === true) w.uint(5, 1)
      break
    case 'enrol-request':
      encodeEnrolRequest(w, m)
      break
    case 'enrol-reply':
      encodeEnrolReply(w, m)
      break
    case 'file-request':
      w.text(1, m.name)
      break
    case 'file-reply':
      w.uint(1, m.found ? 1 : 0)
      break
    case 'operate':
      break
    default: {
      const never: never = m
      throw new TypeError(`${(never as Message).type} has no fields here`)
    }
  }
}

const DECODERS: { readonly [T in MessageType]: (r: WireReader, payload: Uint8Array) => Message } = {
  hello: (r) => {
    const held: HeldImage[] = []
    const addresses: string[] = []
    const hello = { versionMin: 0, versionMax: 0, siteId: new Uint8Array() as Digest, name: '', creditBytes: 0 }
    let metadata: MetadataVersions = { root: 0, timestamp: 0 }
    let clock: number | undefined
    let running: RunningNode | undefined
    const twins: RunningNode[] = []
    let record: SignedAddresses | undefined
    r.fields({
      1: () => (hello.versionMin = r.uint()),
      2: () => (hello.versionMax = r.uint()),
      3: () => (hello.siteId = r.digest()),
      4: () => (hello.name = r.text()),
      5: () => (metadata = readVersions(r.nested())),
      6: () => limited(held, MAX_HELD_IMAGES).push(readHeld(r.nested())),
      7: () => (hello.creditBytes = r.uint()),
      8: () => limited(addresses, MAX_ADDRESSES_PER_PEER).push(r.text()),
      9: () => (clock = r.uint(Number.MAX_SAFE_INTEGER)),
      10: () => (running = readRunning(r.nested())),
      11: () => limited(twins, MAX_TWINS).push(readRunning(r.nested())),
      12: () => (record = readSignedAddresses(r.nested())),
    })
    if (hello.versionMin < 1 || hello.versionMax < hello.versionMin) throw violation('hello names no protocol version')
    required(hello.siteId, 'hello without a site')
    const told = { clock, running, twins: twins.length === 0 ? undefined : twins, record }
    return { type: 'hello', ...hello, metadata, held, addresses, ...given(told) }
  },
  have: (r) => {
    let root: Digest = new Uint8Array()
    let gained = RangeSet.empty
    let lost = RangeSet.empty
    r.fields({
      1: () => (root = r.digest()),
      2: () => (gained = readRuns(r.nested())),
      3: () => (lost = readRuns(r.nested())),
    })
    return { type: 'have', root: required(root, 'have without a root'), gained, lost }
  },
  want: (r) => {
    const requests: WantRequest[] = []
    let packFrom = 0
    r.fields({
      1: () => limited(requests, MAX_WANTS_PER_MESSAGE).push(readRequest(r.nested())),
      2: () => (packFrom = r.uint()),
    })
    return { type: 'want', requests, packFrom }
  },
  block: (r, payload) => {
    let id = 0
    let zeros: Uint8Array = new Uint8Array()
    let coding: Coding = CODING.plain
    let packedUs = 0
    let kept: Uint8Array | undefined
    r.fields({
      1: () => (id = r.uint()),
      2: () => (zeros = r.bytes(MAX_GRANULE_SET_BYTES)),
      3: () => (coding = r.uint(CODING.zstd) as Coding),
      4: () => (packedUs = r.uint()),
      5: () => (kept = r.bytes(MAX_GRANULE_SET_BYTES)),
    })
    return { type: 'block', id, zeros, kept, payload, coding, packedUs }
  },
  missing: (r) => ({ type: 'missing', ids: readIds(r) }),
  cancel: (r) => ({ type: 'cancel', ids: readIds(r) }),
  busy: (r) => {
    const ids: number[] = []
    let retryAfterMs = 0
    r.fields({ 1: () => readPacked(r, ids), 2: () => (retryAfterMs = r.uint()) })
    return { type: 'busy', ids, retryAfterMs }
  },
  find: (r, payload) => {
    let id = 0
    r.fields({ 1: () => (id = r.uint()) })
    const count = payload.byteLength / DIGEST_SIZE_BYTES
    if (!Number.isInteger(count) || count < 1 || count > MAX_FINDS_PER_MESSAGE)
      throw violation(`${count} digests to find`)
    return { type: 'find', id, payload }
  },
  found: (r) => {
    let id = 0
    let found: Uint8Array = new Uint8Array()
    r.fields({ 1: () => (id = r.uint()), 2: () => (found = r.bytes(MAX_FINDS_PER_MESSAGE / 8)) })
    return { type: 'found', id, found }
  },
  fetching: (r) => {
    let root: Digest = new Uint8Array()
    let [level, over] = [0, 0]
    let claimed = RangeSet.empty
    r.fields({
      1: () => (root = r.digest()),
      2: () => (level = r.uint(64)),
      3: () => (claimed = readRuns(r.nested())),
      4: () => (over = r.uint(1)),
    })
    return { type: 'fetching', root: required(root, 'fetching without a root'), level, claimed, over: over === 1 }
  },
  announce: (r) => {
    let metadata: MetadataVersions = { root: 0, timestamp: 0 }
    r.fields({ 1: () => (metadata = readVersions(r.nested())) })
    return { type: 'announce', metadata }
  },
  holds: (r) => {
    const held: HeldImage[] = []
    r.fields({ 1: () => limited(held, MAX_HELD_IMAGES).push(readHeld(r.nested())) })
    return { type: 'holds', held }
  },
  peers: (r) => {
    const peers: PeerAddresses[] = []
    r.fields({ 1: () => limited(peers, MAX_MEMBERS).push(readPeer(r.nested())) })
    return { type: 'peers', peers }
  },
  'join-request': (r) => {
    let siteId: Digest = new Uint8Array()
    let secret: Uint8Array = new Uint8Array()
    let name = ''
    const mac: string[] = []
    let check = 0
    r.fields({
      1: () => (siteId = r.digest()),
      2: () => (secret = r.bytes(DIGEST_SIZE_BYTES)),
      3: () => (name = r.text()),
      4: () => limited(mac, MAX_MAC_ADDRESSES).push(r.text()),
      5: () => (check = r.uint(1)),
    })
    required(siteId, 'join request without a site')
    return { type: 'join-request', siteId, secret, name, mac, ...(check === 1 ? { check: true } : {}) }
  },
  'join-reply': (r) => {
    let [code, message, site, role] = ['', '', '', '']
    let checked = 0
    r.fields({
      1: () => (code = r.text()),
      2: () => (message = r.text()),
      3: () => (site = r.text()),
      4: () => (role = r.text()),
      5: () => (checked = r.uint(1)),
    })
    return {
      type: 'join-reply',
      site,
      ...(code === '' ? {} : { error: { code, message } }),
      ...(role === '' ? {} : { role }),
      ...(checked === 1 ? { checked: true } : {}),
    }
  },
  'enrol-request': readEnrolRequest,
  'enrol-reply': readEnrolReply,
  operate: (_, payload) => ({ type: 'operate', payload }),
  'file-request': (r) => {
    let name = ''
    r.fields({ 1: () => (name = r.text()) })
    return { type: 'file-request', name }
  },
  'file-reply': (r, payload) => {
    let found = 0
    r.fields({ 1: () => (found = r.uint()) })
    return { type: 'file-reply', found: found === 1, payload }
  },
}
