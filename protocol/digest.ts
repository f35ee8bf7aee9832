import { hash } from 'node:crypto'

/** SHA-256 of some content, 32 bytes. */
export type Digest = Uint8Array

/** SHA-256 of `bytes` in one call. A streaming hash object would cost more than hashing 4 KiB does. */
export function digestOf(bytes: Uint8Array): Digest {
  return hash('sha256', bytes, 'buffer')
}

/** 64 lower-case hexadecimal digits. */
export function toHex(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString('hex')
}

/** The inverse of {@link toHex}; undefined if `text` is not exactly a SHA-256 digest in hexadecimal. */
export function digestFromHex(text: string): Digest | undefined {
  return /^[0-9a-f]{64}$/.test(text) ? Buffer.from(text, 'hex') : undefined
}

/** Whether two byte strings are equal. Takes no longer for equal ones: not for secrets. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && Buffer.compare(a, b) === 0
}

const zeroDigests = new Map<number, Digest>()

/** Digest of `blockSize` zero bytes. A block with this digest is written without being fetched. */
export function zeroDigest(blockSize: number): Digest {
  let digest = zeroDigests.get(blockSize)
  if (digest === undefined) {
    digest = digestOf(new Uint8Array(blockSize))
    zeroDigests.set(blockSize, digest)
  }
  return digest
}
