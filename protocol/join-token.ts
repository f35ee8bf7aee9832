import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import { DIGEST_SIZE_BYTES, MAX_ADDRESSES_PER_PEER } from './constants.ts'
import { type Digest, digestOf, sameBytes } from './digest.ts'
import { assertFormat, formatOfMessage } from './document.ts'
import { isMeshError, MeshError } from './errors.ts'

/** What a machine needs to join a site: whom to ask, how to prove the invitation, and which site it must turn out to be. */
export interface JoinToken {
  /** SHA-256 of the site's first root metadata (1.root.json): the joiner accepts no other. */
  readonly siteId: Digest
  /** Peer id of the master that redeems it. */
  readonly peerId: string
  /** Multiaddrs of the master, without the peer id. */
  readonly addresses: readonly string[]
  /** 16 random bytes that the master keeps only as a hash. */
  readonly secret: Uint8Array
  /** Unix times in ms by the master's clock, which decides. */
  readonly issuedAt: number
  readonly expiresAt: number
}

/** Length of the secret of a token, in bytes. */
export const TOKEN_SECRET_BYTES = 16
const PREFIX = 'mesh-'
const CHECKSUM_BYTES = 4
const MAX_TEXT_CHARACTERS = 4096

/** One line of text: `mesh-` and base64url of the protobuf fields with the first 4 bytes of their SHA-256 in front. */
export function encodeJoinToken(token: JoinToken): string {
  const writer = new BinaryWriter().tag(1, 2).bytes(token.siteId).tag(2, 2).string(token.peerId)
  for (const address of token.addresses.slice(0, MAX_ADDRESSES_PER_PEER)) writer.tag(3, 2).string(address)
  writer.tag(4, 2).bytes(token.secret).tag(5, 0).uint64(token.issuedAt).tag(6, 0).uint64(token.expiresAt)
  const body = writer.finish()
  return PREFIX + Buffer.concat([checksum(body), body]).toString('base64url')
}

/** Errors: TOKEN_INVALID when it is truncated, mistyped or something else altogether; FORMAT_NEWER. */
export function decodeJoinToken(text: string): JoinToken {
  const trimmed = text.trim()
  if (!trimmed.startsWith(PREFIX)) throw invalid(`it does not begin with ${PREFIX}`)
  if (trimmed.length > MAX_TEXT_CHARACTERS || !/^[\w-]+$/.test(trimmed))
    throw invalid('it has characters that no token has')
  const bytes = Buffer.from(trimmed.slice(PREFIX.length), 'base64url')
  const body = bytes.subarray(CHECKSUM_BYTES)
  if (!sameBytes(bytes.subarray(0, CHECKSUM_BYTES), checksum(body))) throw invalid('it is truncated or mistyped')
  try {
    assertFormat('the join token', formatOfMessage(body))
    return readFields(body)
  } catch (cause) {
    if (isMeshError(cause)) throw cause
    throw invalid('it was made by another version of mesh', cause)
  }
}

function readFields(body: Uint8Array): JoinToken {
  const reader = new BinaryReader(body)
  let siteId: Digest = new Uint8Array()
  let secret = new Uint8Array()
  let peerId = ''
  let issuedAt = Number.NaN
  let expiresAt = Number.NaN
  const addresses: string[] = []
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === 1) siteId = Uint8Array.from(reader.bytes())
    else if (field === 2) peerId = reader.string()
    else if (field === 3) addresses.push(reader.string())
    else if (field === 4) secret = Uint8Array.from(reader.bytes())
    else if (field === 5) issuedAt = Number(reader.uint64())
    else if (field === 6) expiresAt = Number(reader.uint64())
    else reader.skip(wireType, field)
  }
  const whole =
    siteId.byteLength === DIGEST_SIZE_BYTES &&
    secret.byteLength === TOKEN_SECRET_BYTES &&
    peerId !== '' &&
    addresses.length <= MAX_ADDRESSES_PER_PEER &&
    Number.isSafeInteger(issuedAt) &&
    Number.isSafeInteger(expiresAt)
  if (!whole) throw new RangeError('fields are missing')
  return { siteId, peerId, addresses, secret, issuedAt, expiresAt }
}

function checksum(body: Uint8Array): Uint8Array {
  return digestOf(body).subarray(0, CHECKSUM_BYTES)
}

function invalid(why: string, cause?: unknown): MeshError {
  return new MeshError('TOKEN_INVALID', `the join token is not valid: ${why}`, { cause })
}
