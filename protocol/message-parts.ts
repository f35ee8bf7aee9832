import {
  MAX_ADDRESS_RECORD_BYTES,
  MAX_ADDRESSES_PER_PEER,
  MAX_BLOCK_SIZE_BYTES,
  MAX_GRANULE_CHECKS_BYTES,
  MAX_GRANULE_SET_BYTES,
  MAX_IMAGE_SIZE_BYTES,
  MAX_MAC_ADDRESSES,
} from './constants.ts'
import type { Digest } from './digest.ts'
import { isBlockSize } from './manifest.ts'
import { violation, type WireReader } from './wire-reader.ts'
import { limited, required } from './wire-runs.ts'
import type { WireWriter } from './wire-writer.ts'

/** What several messages of the mesh protocols are made of, and how each part is written and read. */

/** What a field is until it is read, shared by all messages: a want of 4096 requests would make 8192 of them. */
const NOTHING: Uint8Array = new Uint8Array()

/** The newest signed metadata that a machine has, by the version numbers of two TUF roles. */
export interface MetadataVersions {
  readonly root: number
  readonly timestamp: number
  /** The first 8 bytes of the SHA-256 of timestamp.json, in hexadecimal; earlier versions do not tell it. */
  readonly head?: string | undefined
}

/** One image a peer holds (parts of), by the root of its hash tree. */
export interface HeldImage {
  readonly root: Digest
  readonly size: number
  readonly blockSize: number
}

/** One block or page that a client asks for. */
export interface WantRequest {
  /** Chosen by the client, unique among its open requests. */
  readonly id: number
  readonly digest: Digest
  /** Where the client expects the content in the tree: level 0 are blocks. A hint only: the digest decides. */
  readonly level: number
  readonly index: number
  /** The block size of the client's image. */
  readonly size: number
  /** Coded set of the granules that are wanted; no bytes for the whole block (granules.ts). */
  readonly granules: Uint8Array
  /** Checks of what the client has in its place (granules.ts): what is like that need not come. */
  readonly checks?: Uint8Array | undefined
}

/** Addresses that a machine has signed itself, as it did (address-record.ts); whoever passes them on changes nothing. */
export interface SignedAddresses {
  /** JSON, at most MAX_ADDRESS_RECORD_BYTES. */
  readonly text: string
  /** Ed25519, in base64url. */
  readonly signature: string
}

/** Where a member can be dialled: its peer id and multiaddrs, all of them text. */
export interface PeerAddresses {
  readonly id: string
  readonly addresses: readonly string[]
  /** What the member itself says. Absent if the sender has nothing signed by it, as of an earlier version. */
  readonly record?: SignedAddresses | undefined
}

/** What a machine says of the run of mesh that speaks, so that two machines with one key are told apart. */
export interface RunningNode {
  /** Random for each run, 16 hexadecimal digits. */
  readonly instance: string
  /** Host name, for people; empty if it is not known. */
  readonly host: string
  /** The managed disk with its serial number, for people; empty if there is none. */
  readonly disk: string
  /** Addresses of its network cards, as in the member list; at most MAX_MAC_ADDRESSES. */
  readonly mac: readonly string[]
  /** Where it is reached; of the sender itself they stand in the hello. */
  readonly addresses: readonly string[]
}

/** Writes versions of the signed metadata. */
export function encodeVersions(w: WireWriter, versions: MetadataVersions): void {
  w.uint(1, versions.root)
  w.uint(2, versions.timestamp)
  if (versions.head !== undefined) w.text(3, versions.head)
}

/** Reads versions of the signed metadata. Errors: PROTOCOL_VIOLATION. */
export function readVersions(r: WireReader): MetadataVersions {
  const versions = { root: 0, timestamp: 0 }
  let head = ''
  r.fields({
    1: () => (versions.root = r.uint()),
    2: () => (versions.timestamp = r.uint()),
    3: () => (head = r.text()),
  })
  return head === '' ? versions : { ...versions, head }
}

/** Writes an image that a peer holds. */
export function encodeHeld(w: WireWriter, held: HeldImage): void {
  w.bytes(1, held.root)
  w.uint(2, held.size)
  w.uint(3, held.blockSize)
}

/** Reads an image that a peer holds. Errors: PROTOCOL_VIOLATION. */
export function readHeld(r: WireReader): HeldImage {
  const held = { root: new Uint8Array() as Digest, size: 0, blockSize: 0 }
  r.fields({
    1: () => (held.root = r.digest()),
    2: () => (held.size = r.uint(MAX_IMAGE_SIZE_BYTES)),
    3: () => (held.blockSize = r.uint(MAX_BLOCK_SIZE_BYTES)),
  })
  required(held.root, 'held image without a root')
  if (held.size < 1 || !isBlockSize(held.blockSize)) throw violation('held image without a size')
  return held
}

/** Writes one request of a want message. */
export function encodeRequest(w: WireWriter, request: WantRequest): void {
  w.uint(1, request.id)
  w.bytes(2, request.digest)
  w.uint(3, request.level)
  w.uint(4, request.index)
  w.uint(5, request.size)
  w.bytes(6, request.granules)
  if (request.checks !== undefined) w.bytes(7, request.checks)
}

/** Reads one request of a want message. Errors: PROTOCOL_VIOLATION. */
export function readRequest(r: WireReader): WantRequest {
  const request = {
    id: 0,
    digest: NOTHING as Digest,
    level: 0,
    index: 0,
    size: 0,
    granules: NOTHING,
    checks: undefined as Uint8Array | undefined,
  }
  r.fields({
    1: () => (request.id = r.uint()),
    2: () => (request.digest = r.digest()),
    3: () => (request.level = r.uint(64)),
    4: () => (request.index = r.uint(Number.MAX_SAFE_INTEGER)),
    5: () => (request.size = r.uint(MAX_BLOCK_SIZE_BYTES)),
    6: () => (request.granules = r.bytes(MAX_GRANULE_SET_BYTES)),
    7: () => (request.checks = r.bytes(MAX_GRANULE_CHECKS_BYTES)),
  })
  required(request.digest, 'want without a digest')
  if (!isBlockSize(request.size)) throw violation('want without a block size')
  return request
}

/** Writes where a member can be dialled. */
export function encodePeer(w: WireWriter, peer: PeerAddresses): void {
  w.text(1, peer.id)
  for (const address of peer.addresses) w.text(2, address)
  if (peer.record !== undefined) w.group(3, peer.record, encodeSignedAddresses)
}

/** Reads where a member can be dialled. Errors: PROTOCOL_VIOLATION. */
export function readPeer(r: WireReader): PeerAddresses {
  let id = ''
  let record: SignedAddresses | undefined
  const addresses: string[] = []
  r.fields({
    1: () => (id = r.text()),
    2: () => limited(addresses, MAX_ADDRESSES_PER_PEER).push(r.text()),
    3: () => (record = readSignedAddresses(r.nested())),
  })
  return record === undefined ? { id, addresses } : { id, addresses, record }
}

/** Writes addresses that a machine has signed. */
export function encodeSignedAddresses(w: WireWriter, { text, signature }: SignedAddresses): void {
  w.text(1, text)
  w.text(2, signature)
}

/** Reads addresses that a machine has signed; nobody has looked at the signature. Errors: PROTOCOL_VIOLATION. */
export function readSignedAddresses(r: WireReader): SignedAddresses {
  let [text, signature] = ['', '']
  r.fields({ 1: () => (text = r.text(MAX_ADDRESS_RECORD_BYTES)), 2: () => (signature = r.text()) })
  return { text, signature }
}

/** Writes what a machine says of one run of mesh. */
export function encodeRunning(w: WireWriter, node: RunningNode): void {
  w.text(1, node.instance)
  w.text(2, node.host)
  w.text(3, node.disk)
  for (const address of node.mac) w.text(4, address)
  for (const address of node.addresses) w.text(5, address)
}

/** Reads what a machine says of one run of mesh. Errors: PROTOCOL_VIOLATION. */
export function readRunning(r: WireReader): RunningNode {
  let [instance, host, disk] = ['', '', '']
  const mac: string[] = []
  const addresses: string[] = []
  r.fields({
    1: () => (instance = r.text()),
    2: () => (host = r.text()),
    3: () => (disk = r.text()),
    4: () => limited(mac, MAX_MAC_ADDRESSES).push(r.text()),
    5: () => limited(addresses, MAX_ADDRESSES_PER_PEER).push(r.text()),
  })
  if (!/^[0-9a-f]{16}$/.test(instance)) throw violation('a process without a number')
  return { instance, host, disk, mac, addresses }
}
