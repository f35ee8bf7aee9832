import { pureJsCrypto } from '@chainsafe/libp2p-noise'
import { Uint8ArrayList } from 'uint8arraylist'
import { describe, expect, it } from 'vitest'
import { noiseCrypto } from '../../../node/net/noise-crypto.ts'
import { Random } from '../../../tools/lab/random.ts'
import { testSeed } from '../../support/seed.ts'

const EMPTY = new Uint8Array(0)
/** The longest text of one noise message, and the bounds around which anything could change. */
const SIZES = [0, 1, 12, 15, 16, 17, 63, 64, 65, 1199, 1200, 4096, 16_384, 65_518, 65_519]
const TAG_BYTES = 16

describe('noise crypto', () => {
  const random = new Random(testSeed('noise crypto'))
  /** The same bytes in pieces: yamux's header stands alone, and a read of the socket ends where it likes. */
  const inPieces = (bytes: Uint8Array): Uint8ArrayList => {
    const list = new Uint8ArrayList()
    for (let at = 0; at < bytes.byteLength; ) {
      const end = Math.min(bytes.byteLength, at + 1 + random.below(Math.max(1, bytes.byteLength / 2)))
      list.append(bytes.subarray(at, end))
      at = end
    }
    return list
  }

  it.each(SIZES)('encrypts and decrypts %i bytes as the library does', (size) => {
    for (const ad of [EMPTY, random.bytes(32)]) {
      const [key, nonce, text] = [random.bytes(32), random.bytes(12), random.bytes(size)]
      const expected = pureJsCrypto.chaCha20Poly1305Encrypt(text, nonce, ad, key).subarray()
      expect(expected.byteLength).toBe(size + TAG_BYTES)
      for (const given of [text, inPieces(text)]) {
        const encrypted = noiseCrypto.chaCha20Poly1305Encrypt(given, nonce, ad, key)
        expect(encrypted.byteLength).toBe(size + TAG_BYTES)
        expect(Buffer.compare(encrypted.subarray(), expected)).toBe(0)
      }
      for (const given of [expected, inPieces(expected)]) {
        const decrypted = noiseCrypto.chaCha20Poly1305Decrypt(given, nonce, ad, key)
        expect(decrypted.byteLength).toBe(size)
        expect(Buffer.compare(decrypted.subarray(), text)).toBe(0)
      }
    }
  })

  it('uses the key and the nonce it is given, whatever it was given before', () => {
    const keys = [random.bytes(32), random.bytes(32)]
    const nonce = new Uint8Array(12)
    const text = random.bytes(100)
    for (let count = 0; count < 6; count++) {
      // The library counts in place.
      nonce[4] = count
      for (const key of keys) {
        const encrypted = noiseCrypto.chaCha20Poly1305Encrypt(text, nonce, EMPTY, key).subarray()
        expect(encrypted).toEqual(Buffer.from(pureJsCrypto.chaCha20Poly1305Encrypt(text, nonce, EMPTY, key).subarray()))
      }
    }
  })

  it('keeps what it was given as it is', () => {
    const [key, nonce, text] = [random.bytes(32), random.bytes(12), random.bytes(5000)]
    const encrypted = noiseCrypto.chaCha20Poly1305Encrypt(text, nonce, EMPTY, key).subarray()
    const before = [Buffer.from(text), Buffer.from(encrypted), Buffer.from(key), Buffer.from(nonce)]
    noiseCrypto.chaCha20Poly1305Encrypt(inPieces(text), nonce, EMPTY, key)
    noiseCrypto.chaCha20Poly1305Decrypt(inPieces(encrypted), nonce, EMPTY, key)
    expect([text, encrypted, key, nonce].map((bytes) => Buffer.from(bytes))).toEqual(before)
  })

  it.each(SIZES)('refuses %i bytes of which one bit is wrong', (size) => {
    const [key, nonce, ad] = [random.bytes(32), random.bytes(12), random.bytes(32)]
    const good = noiseCrypto.chaCha20Poly1305Encrypt(random.bytes(size), nonce, ad, key).subarray()
    const places = [0, size, size + TAG_BYTES - 1, random.below(size + TAG_BYTES)]
    for (const place of places) {
      const bad = Buffer.from(good)
      bad[place]! ^= 1 << random.below(8)
      for (const given of [bad, inPieces(bad)]) {
        expect(() => noiseCrypto.chaCha20Poly1305Decrypt(given, nonce, ad, key), `byte ${place}`).toThrow()
      }
    }
    expect(() => noiseCrypto.chaCha20Poly1305Decrypt(good, nonce, EMPTY, key)).toThrow()
    expect(() => noiseCrypto.chaCha20Poly1305Decrypt(good, random.bytes(12), ad, key)).toThrow()
    expect(() => noiseCrypto.chaCha20Poly1305Decrypt(good, nonce, ad, random.bytes(32))).toThrow()
    expect(() => noiseCrypto.chaCha20Poly1305Decrypt(good.subarray(0, -1), nonce, ad, key)).toThrow()
  })

  it('agrees with the library on keys, secrets and hashes', () => {
    const [own, theirs] = [noiseCrypto.generateX25519KeyPair(), pureJsCrypto.generateX25519KeyPair()]
    expect([own.publicKey.byteLength, own.privateKey.byteLength]).toEqual([32, 32])
    const secret = Buffer.from(pureJsCrypto.generateX25519SharedKey(own.privateKey, theirs.publicKey))
    for (const publicKey of [theirs.publicKey, inPieces(theirs.publicKey)]) {
      expect(Buffer.from(noiseCrypto.generateX25519SharedKey(own.privateKey, publicKey))).toEqual(secret)
    }
    expect(Buffer.from(noiseCrypto.generateX25519SharedKey(theirs.privateKey, own.publicKey))).toEqual(secret)
    const seed = random.bytes(32)
    const [seeded, expected] = [noiseCrypto, pureJsCrypto].map((crypto) => crypto.generateX25519KeyPairFromSeed(seed))
    expect(Buffer.from(seeded!.publicKey)).toEqual(Buffer.from(expected!.publicKey))
    const data = random.bytes(1000)
    const hashed = Buffer.from(pureJsCrypto.hashSHA256(data))
    expect(Buffer.from(noiseCrypto.hashSHA256(data))).toEqual(hashed)
    expect(Buffer.from(noiseCrypto.hashSHA256(inPieces(data)))).toEqual(hashed)
  })
})
