import { createPrivateKey, createPublicKey } from 'node:crypto'
import type { SigningKey } from '../../protocol/signed-document.ts'

/** What stands before the seed of an Ed25519 key in PKCS #8 (RFC 8410, section 7). */
const PKCS8_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex')

/** The key whose seed is 32 times this byte. */
export function keyOf(byte: number): SigningKey {
  const seed = Buffer.alloc(32, byte)
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_HEAD, seed]), format: 'der', type: 'pkcs8' })
  return { seed, publicKey: Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x!, 'base64url') }
}

/** The key of the golden documents in test/vectors. */
export const GOLDEN_KEY = keyOf(7)
