import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  generateKeyPairSync,
  hash,
  type KeyObject,
} from 'node:crypto'
import { type ICryptoInterface, type KeyPair, pureJsCrypto } from '@chainsafe/libp2p-noise'

const CIPHER = 'chacha20-poly1305'
const TAG_BYTES = 16
const TAG = { authTagLength: TAG_BYTES }
const X25519_KEY_BYTES = 32
/** What stands before the 32 bytes of an X25519 key in DER (RFC 8410). */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex')
const SPKI_PREFIX = Buffer.from('302a300506032b656e032100', 'hex')

type Bytes = Parameters<ICryptoInterface['hashSHA256']>[0]

/**
 * The cryptography of noise by OpenSSL, for small messages as well. What the library's own one spends on a message besides
 * the cipher is saved: a key is made known to OpenSSL once, not for every message, and nothing is copied.
 */
export const noiseCrypto: ICryptoInterface = {
  hashSHA256: (data) => hash('sha256', data.subarray(), 'buffer'),
  getHKDF: pureJsCrypto.getHKDF,

  generateX25519KeyPair(): KeyPair {
    const { publicKey, privateKey } = generateKeyPairSync('x25519')
    return { publicKey: rawPublicKey(publicKey), privateKey: rawPrivateKey(privateKey) }
  },

  generateX25519KeyPairFromSeed(seed): KeyPair {
    return { publicKey: rawPublicKey(createPublicKey(privateKeyOf(seed))), privateKey: seed }
  },

  generateX25519SharedKey(privateKey, publicKey) {
    return diffieHellman({ privateKey: privateKeyOf(privateKey), publicKey: publicKeyOf(publicKey) })
  },

  chaCha20Poly1305Encrypt(plaintext, nonce, ad, key) {
    const cipher = createCipheriv(CIPHER, keyObjectOf(key), nonce, TAG)
    // None after the handshake.
    if (ad.byteLength > 0) cipher.setAAD(ad, { plaintextLength: plaintext.byteLength })
    const encrypted = partsOf(plaintext).map((part) => cipher.update(part))
    cipher.final()
    encrypted.push(cipher.getAuthTag())
    return listLike(plaintext, encrypted)
  },

  chaCha20Poly1305Decrypt(ciphertext, nonce, ad, key) {
    const length = ciphertext.byteLength - TAG_BYTES
    const decipher = createDecipheriv(CIPHER, keyObjectOf(key), nonce, TAG)
    if (ad.byteLength > 0) decipher.setAAD(ad, { plaintextLength: length })
    decipher.setAuthTag(ciphertext.subarray(length))
    const text = ciphertext instanceof Uint8Array ? ciphertext.subarray(0, length) : ciphertext.sublist(0, length)
    const decrypted = partsOf(text).map((part) => decipher.update(part))
    // Throws if the tag is wrong.
    decipher.final()
    return listLike(ciphertext, decrypted)
  },
}

/** A connection keeps the same array for each of its two keys as long as it lives. */
const keyObjects = new WeakMap<Uint8Array, KeyObject>()

function keyObjectOf(key: Uint8Array): KeyObject {
  let object = keyObjects.get(key)
  if (object === undefined) {
    object = createSecretKey(key)
    keyObjects.set(key, object)
  }
  return object
}

function partsOf(bytes: Bytes): Uint8Array[] {
  return bytes instanceof Uint8Array ? [bytes] : [...bytes]
}

/** Without a copy if the library gave us a list, and so takes one. */
function listLike(given: Bytes, parts: readonly Uint8Array[]): Bytes {
  if (parts.length === 1) return parts[0]!
  if (given instanceof Uint8Array) return Buffer.concat(parts)
  const list = given.sublist(0, 0)
  list.append(...parts)
  return list
}

function rawPublicKey(key: KeyObject): Uint8Array {
  return key.export({ type: 'spki', format: 'der' }).subarray(-X25519_KEY_BYTES)
}

function rawPrivateKey(key: KeyObject): Uint8Array {
  return key.export({ type: 'pkcs8', format: 'der' }).subarray(-X25519_KEY_BYTES)
}

function privateKeyOf(raw: Bytes): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, raw.subarray()]), type: 'pkcs8', format: 'der' })
}

function publicKeyOf(raw: Bytes): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_PREFIX, raw.subarray()]), type: 'spki', format: 'der' })
}
