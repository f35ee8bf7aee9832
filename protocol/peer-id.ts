/** Identity multihash of the protobuf-coded Ed25519 key (libp2p peer id specification). */
const PREFIX = Buffer.from([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
const KEY_BYTES = 32
const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
/** Ids of Ed25519 keys have 52 characters. */
const MAX_CHARACTERS = 64

/** The libp2p peer id (`12D3Koo…`) of an Ed25519 public key, without loading libp2p. */
export function peerIdOf(publicKey: Uint8Array): string {
  let rest = BigInt(`0x${Buffer.concat([PREFIX, publicKey]).toString('hex')}`)
  let text = ''
  for (; rest > 0n; rest /= 58n) text = BASE58[Number(rest % 58n)] + text
  // Base58 writes each leading zero byte as the digit 1, and the prefix begins with one zero byte.
  return `1${text}`
}

/** The public key that a peer id contains; undefined if it is no id of an Ed25519 key. */
export function publicKeyOf(peerId: string): Uint8Array | undefined {
  if (peerId.length > MAX_CHARACTERS) return undefined
  let value = 0n
  for (const digit of peerId) {
    const at = BASE58.indexOf(digit)
    if (at === -1) return undefined
    value = value * 58n + BigInt(at)
  }
  const hex = value.toString(16)
  const digits = 2 * (PREFIX.byteLength + KEY_BYTES)
  if (hex.length > digits) return undefined
  const key = Buffer.from(hex.padStart(digits, '0'), 'hex').subarray(PREFIX.byteLength)
  return peerIdOf(key) === peerId ? key : undefined
}
