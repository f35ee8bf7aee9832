import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import {
  DIGEST_SIZE_BYTES,
  MAX_ADDRESSES_PER_PEER,
  MAX_BLOCK_SIZE_BYTES,
  MAX_HELD_IMAGES,
  MAX_IMAGE_SIZE_BYTES,
  MAX_MEMBERS,
  MAX_RUNS_PER_HAVE,
  MAX_WANTS_PER_MESSAGE,
  MIN_BLOCK_SIZE_BYTES,
} from './constants.ts'
import type { Digest } from './digest.ts'
import { MeshError } from './errors.ts'
import { RangeSet, type Run } from './ranges.ts'

/** The grammar of the mesh protocols; docs/PROTOCOL.md gives the field numbers and who may send what when. */

export interface MetadataVersions {
  readonly root: number
  readonly timestamp: number
}

/** One image a peer holds (parts of), by the root of its hash tree. */
export interface HeldImage {
  readonly root: Digest
  readonly size: number
  readonly blockSize: number
}

export interface WantRequest {
  /** Chosen by the client, unique among its open requests. */
  readonly id: number
  readonly digest: Digest
  /** Where the client expects the content in the tree: level 0 are blocks. A hint only: the digest decides. */
  readonly level: number
  readonly index: number
  /** Bytes the client expects at most: the block size of its image. Counts against the server's credit. */
  readonly size: number
}

export interface PeerAddresses {
  readonly id: string
  readonly addresses: readonly string[]
}

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
    }
  | { readonly type: 'have'; readonly root: Digest; readonly gained: RangeSet; readonly lost: RangeSet }
  | { readonly type: 'want'; readonly requests: readonly WantRequest[] }
  | { readonly type: 'block'; readonly id: number; readonly payload: Uint8Array }
  | { readonly type: 'missing'; readonly ids: readonly number[] }
  | { readonly type: 'cancel'; readonly ids: readonly number[] }
  | { readonly type: 'busy'; readonly ids: readonly number[]; readonly retryAfterMs: number }
  | { readonly type: 'announce'; readonly metadata: MetadataVersions }
  | { readonly type: 'holds'; readonly held: readonly HeldImage[] }
  | { readonly type: 'peers'; readonly peers: readonly PeerAddresses[] }
  | { readonly type: 'join-request'; readonly siteId: Digest; readonly secret: Uint8Array; readonly name: string }
  | {
      readonly type: 'join-reply'
      readonly error?: { readonly code: string; readonly message: string }
      readonly site: string
    }
  | { readonly type: 'file-request'; readonly name: string }
  | { readonly type: 'file-reply'; readonly found: boolean; readonly payload: Uint8Array }

export type MessageType = Message['type']

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
  'join-request': 16,
  'join-reply': 17,
  'file-request': 24,
  'file-reply': 25,
} as const satisfies Record<MessageType, number>

const TYPES = new Map<number, MessageType>(Object.entries(KINDS).map(([type, kind]) => [kind, type as MessageType]))

const MAX_TEXT_BYTES = 1024
const MAX_UINT32 = 0xffffffff

/** The header of a frame; a block's or file's content travels as the frame's payload. */
export function encodeMessage(message: Message): Uint8Array {
  const writer = new BinaryWriter().tag(KINDS[message.type], WireType.LengthDelimited).fork()
  encodeFields(writer, message)
  return writer.join().finish()
}

/** The inverse of {@link encodeMessage}. `payload` is kept, not copied. Errors: PROTOCOL_VIOLATION, and no other. */
export function decodeMessage(header: Uint8Array, payload: Uint8Array): Message {
  try {
    const reader = new BinaryReader(header)
    const [kind, wireType] = reader.tag()
    if (wireType !== WireType.LengthDelimited) throw violation('the header is no message')
    const body = reader.bytes()
    if (reader.pos !== reader.len) throw violation('bytes follow the message')
    const type = TYPES.get(kind)
    if (type === undefined) throw violation(`message kind ${kind} is not known`)
    if (payload.byteLength > 0 && type !== 'block' && type !== 'file-reply')
      throw violation(`${type} carries a payload`)
    return DECODERS[type](new BinaryReader(body), payload)
  } catch (error) {
    if (error instanceof MeshError) throw error
    throw new MeshError('PROTOCOL_VIOLATION', 'a message is not well-formed', { cause: error })
  }
}

function encodeFields(w: BinaryWriter, m: Message): void {
  switch (m.type) {
    case 'hello':
      uint(w, 1, m.versionMin)
      uint(w, 2, m.versionMax)
      bytes(w, 3, m.siteId)
      text(w, 4, m.name)
      group(w, 5, m.metadata, encodeVersions)
      for (const held of m.held) group(w, 6, held, encodeHeld)
      uint(w, 7, m.creditBytes)
      for (const address of m.addresses) text(w, 8, address)
      break
    case 'have':
      bytes(w, 1, m.root)
      encodeRuns(w, 2, m.gained)
      encodeRuns(w, 3, m.lost)
      break
    case 'want':
      for (const request of m.requests) group(w, 1, request, encodeRequest)
      break
    case 'block':
      uint(w, 1, m.id)
      break
    case 'missing':
    case 'cancel':
      packed(w, 1, m.ids)
      break
    case 'busy':
      packed(w, 1, m.ids)
      uint(w, 2, m.retryAfterMs)
      break
    case 'announce':
      group(w, 1, m.metadata, encodeVersions)
      break
    case 'holds':
      for (const held of m.held) group(w, 1, held, encodeHeld)
      break
    case 'peers':
      for (const peer of m.peers) group(w, 1, peer, encodePeer)
      break
    case 'join-request':
      bytes(w, 1, m.siteId)
      bytes(w, 2, m.secret)
      text(w, 3, m.name)
      break
    case 'join-reply':
      if (m.error !== undefined) {
        text(w, 1, m.error.code)
        text(w, 2, m.error.message)
      }
      text(w, 3, m.site)
      break
    case 'file-request':
      text(w, 1, m.name)
      break
    case 'file-reply':
      uint(w, 1, m.found ? 1 : 0)
      break
  }
}

const DECODERS: { readonly [T in MessageType]: (r: BinaryReader, payload: Uint8Array) => Message } = {
  hello: (r) => {
    const held: HeldImage[] = []
    const addresses: string[] = []
    const hello = { versionMin: 0, versionMax: 0, siteId: new Uint8Array() as Digest, name: '', creditBytes: 0 }
    let metadata: MetadataVersions = { root: 0, timestamp: 0 }
    fields(r, {
      1: () => (hello.versionMin = readUint(r)),
      2: () => (hello.versionMax = readUint(r)),
      3: () => (hello.siteId = readDigest(r)),
      4: () => (hello.name = readText(r)),
      5: () => (metadata = readVersions(nested(r))),
      6: () => limited(held, MAX_HELD_IMAGES).push(readHeld(nested(r))),
      7: () => (hello.creditBytes = readUint(r)),
      8: () => limited(addresses, MAX_ADDRESSES_PER_PEER).push(readText(r)),
    })
    if (hello.versionMin < 1 || hello.versionMax < hello.versionMin) throw violation('hello names no protocol version')
    required(hello.siteId, 'hello without a site')
    return { type: 'hello', ...hello, metadata, held, addresses }
  },
  have: (r) => {
    let root: Digest = new Uint8Array()
    let gained = RangeSet.empty
    let lost = RangeSet.empty
    fields(r, {
      1: () => (root = readDigest(r)),
      2: () => (gained = readRuns(nested(r))),
      3: () => (lost = readRuns(nested(r))),
    })
    return { type: 'have', root: required(root, 'have without a root'), gained, lost }
  },
  want: (r) => {
    const requests: WantRequest[] = []
    fields(r, { 1: () => limited(requests, MAX_WANTS_PER_MESSAGE).push(readRequest(nested(r))) })
    return { type: 'want', requests }
  },
  block: (r, payload) => {
    let id = 0
    fields(r, { 1: () => (id = readUint(r)) })
    return { type: 'block', id, payload }
  },
  missing: (r) => ({ type: 'missing', ids: readIds(r) }),
  cancel: (r) => ({ type: 'cancel', ids: readIds(r) }),
  busy: (r) => {
    const ids: number[] = []
    let retryAfterMs = 0
    fields(r, { 1: () => readPacked(r, ids), 2: () => (retryAfterMs = readUint(r)) })
    return { type: 'busy', ids, retryAfterMs }
  },
  announce: (r) => {
    let metadata: MetadataVersions = { root: 0, timestamp: 0 }
    fields(r, { 1: () => (metadata = readVersions(nested(r))) })
    return { type: 'announce', metadata }
  },
  holds: (r) => {
    const held: HeldImage[] = []
    fields(r, { 1: () => limited(held, MAX_HELD_IMAGES).push(readHeld(nested(r))) })
    return { type: 'holds', held }
  },
  peers: (r) => {
    const peers: PeerAddresses[] = []
    fields(r, { 1: () => limited(peers, MAX_MEMBERS).push(readPeer(nested(r))) })
    return { type: 'peers', peers }
  },
  'join-request': (r) => {
    let siteId: Digest = new Uint8Array()
    let secret: Uint8Array = new Uint8Array()
    let name = ''
    fields(r, {
      1: () => (siteId = readDigest(r)),
      2: () => (secret = readBytes(r, DIGEST_SIZE_BYTES)),
      3: () => (name = readText(r)),
    })
    return { type: 'join-request', siteId: required(siteId, 'join request without a site'), secret, name }
  },
  'join-reply': (r) => {
    let code = ''
    let message = ''
    let site = ''
    fields(r, { 1: () => (code = readText(r)), 2: () => (message = readText(r)), 3: () => (site = readText(r)) })
    return { type: 'join-reply', site, ...(code === '' ? {} : { error: { code, message } }) }
  },
  'file-request': (r) => {
    let name = ''
    fields(r, { 1: () => (name = readText(r)) })
    return { type: 'file-request', name }
  },
  'file-reply': (r, payload) => {
    let found = 0
    fields(r, { 1: () => (found = readUint(r)) })
    return { type: 'file-reply', found: found === 1, payload }
  },
}

function encodeVersions(w: BinaryWriter, versions: MetadataVersions): void {
  uint(w, 1, versions.root)
  uint(w, 2, versions.timestamp)
}

function readVersions(r: BinaryReader): MetadataVersions {
  const versions = { root: 0, timestamp: 0 }
  fields(r, { 1: () => (versions.root = readUint(r)), 2: () => (versions.timestamp = readUint(r)) })
  return versions
}

function encodeHeld(w: BinaryWriter, held: HeldImage): void {
  bytes(w, 1, held.root)
  uint(w, 2, held.size)
  uint(w, 3, held.blockSize)
}

function readHeld(r: BinaryReader): HeldImage {
  const held = { root: new Uint8Array() as Digest, size: 0, blockSize: 0 }
  fields(r, {
    1: () => (held.root = readDigest(r)),
    2: () => (held.size = readUint(r, MAX_IMAGE_SIZE_BYTES)),
    3: () => (held.blockSize = readUint(r, MAX_BLOCK_SIZE_BYTES)),
  })
  required(held.root, 'held image without a root')
  if (held.size < 1 || held.blockSize < MIN_BLOCK_SIZE_BYTES) throw violation('held image without a size')
  return held
}

function encodeRequest(w: BinaryWriter, request: WantRequest): void {
  uint(w, 1, request.id)
  bytes(w, 2, request.digest)
  uint(w, 3, request.level)
  uint(w, 4, request.index)
  uint(w, 5, request.size)
}

function readRequest(r: BinaryReader): WantRequest {
  const request = { id: 0, digest: new Uint8Array() as Digest, level: 0, index: 0, size: 0 }
  fields(r, {
    1: () => (request.id = readUint(r)),
    2: () => (request.digest = readDigest(r)),
    3: () => (request.level = readUint(r, 64)),
    4: () => (request.index = readUint(r, Number.MAX_SAFE_INTEGER)),
    5: () => (request.size = readUint(r, MAX_BLOCK_SIZE_BYTES)),
  })
  required(request.digest, 'want without a digest')
  if (request.size < MIN_BLOCK_SIZE_BYTES) throw violation('want without a size')
  return request
}

function encodePeer(w: BinaryWriter, peer: PeerAddresses): void {
  text(w, 1, peer.id)
  for (const address of peer.addresses) text(w, 2, address)
}

function readPeer(r: BinaryReader): PeerAddresses {
  let id = ''
  const addresses: string[] = []
  fields(r, {
    1: () => (id = readText(r)),
    2: () => limited(addresses, MAX_ADDRESSES_PER_PEER).push(readText(r)),
  })
  return { id, addresses }
}

/** Runs are coded as pairs of varints: the gap since the last run's end, and the length. */
function encodeRuns(w: BinaryWriter, field: number, ranges: RangeSet): void {
  if (ranges.isEmpty) return
  w.tag(field, WireType.LengthDelimited).fork()
  let at = 0
  for (const [start, end] of ranges.runs()) {
    w.uint64(start - at).uint64(end - start)
    at = end
  }
  w.join()
}

function readRuns(r: BinaryReader): RangeSet {
  const runs: Run[] = []
  let at = 0
  while (r.pos < r.len) {
    const start = at + Number(r.uint64())
    const end = start + Number(r.uint64())
    if (end <= start || end > MAX_IMAGE_SIZE_BYTES / MIN_BLOCK_SIZE_BYTES)
      throw violation('a run lies outside any image')
    limited(runs, MAX_RUNS_PER_HAVE).push([start, end])
    at = end
  }
  return RangeSet.from(runs)
}

function readIds(r: BinaryReader): number[] {
  const ids: number[] = []
  fields(r, { 1: () => readPacked(r, ids) })
  return ids
}

function readPacked(r: BinaryReader, ids: number[]): void {
  const inner = nested(r)
  while (inner.pos < inner.len) limited(ids, MAX_WANTS_PER_MESSAGE).push(inner.uint32())
}

/** Writers leave out zero and empty values, as protobuf does. */
function uint(w: BinaryWriter, field: number, value: number): void {
  if (value !== 0) w.tag(field, WireType.Varint).uint64(value)
}

function bytes(w: BinaryWriter, field: number, value: Uint8Array): void {
  if (value.byteLength > 0) w.tag(field, WireType.LengthDelimited).bytes(value)
}

function text(w: BinaryWriter, field: number, value: string): void {
  if (value !== '') w.tag(field, WireType.LengthDelimited).string(value)
}

function packed(w: BinaryWriter, field: number, values: readonly number[]): void {
  w.tag(field, WireType.LengthDelimited).fork()
  for (const value of values) w.uint32(value)
  w.join()
}

function group<T>(w: BinaryWriter, field: number, value: T, encode: (w: BinaryWriter, value: T) => void): void {
  w.tag(field, WireType.LengthDelimited).fork()
  encode(w, value)
  w.join()
}

/** Hands every known field to its reader and skips the others, so that later versions may add fields. */
function fields(r: BinaryReader, readers: Readonly<Record<number, () => unknown>>): void {
  while (r.pos < r.len) {
    const [field, wireType] = r.tag()
    const read = readers[field]
    if (read === undefined) r.skip(wireType, field)
    else if (wireType === WireType.Varint || wireType === WireType.LengthDelimited) read()
    else throw violation(`field ${field} has wire type ${wireType}`)
  }
}

function nested(r: BinaryReader): BinaryReader {
  return new BinaryReader(r.bytes())
}

function readUint(r: BinaryReader, most = MAX_UINT32): number {
  const value = Number(r.uint64())
  if (value > most) throw violation(`${value} is more than ${most}`)
  return value
}

function readBytes(r: BinaryReader, most: number): Uint8Array {
  const value = r.bytes()
  if (value.byteLength > most) throw violation(`${value.byteLength} bytes where ${most} are the most`)
  return Uint8Array.from(value)
}

function readDigest(r: BinaryReader): Digest {
  const value = readBytes(r, DIGEST_SIZE_BYTES)
  if (value.byteLength !== DIGEST_SIZE_BYTES) throw violation('a digest has not 32 bytes')
  return value
}

function readText(r: BinaryReader): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(readBytes(r, MAX_TEXT_BYTES))
}

function required(digest: Digest, what: string): Digest {
  if (digest.byteLength === 0) throw violation(what)
  return digest
}

/** The list itself, unless it is full. */
function limited<T>(list: T[], most: number): T[] {
  if (list.length >= most) throw violation(`more than ${most} items in a list`)
  return list
}

function violation(why: string): MeshError {
  return new MeshError('PROTOCOL_VIOLATION', `a message breaks the protocol: ${why}`)
}
