import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import { type DocumentShape, readDocument } from './document.ts'
import { isMeshError } from './errors.ts'
import { peerIdOf, publicKeyOf } from './peer-id.ts'

/** A text that one machine of the site has signed (docs/PROTOCOL.md, signed documents). */
export interface SignedDocument {
  /** Peer id of the machine that signed it, which contains the key. */
  readonly by: string
  /** JSON; exactly what was signed. */
  readonly text: string
  /** Ed25519, in base64url. */
  readonly signature: string
}

/** What a document is, so that none can be taken for one of another kind. */
type DocumentKind = 'roll' | 'receipt' | 'master' | 'addresses'

/** The raw Ed25519 key of a machine. */
export interface SigningKey {
  /** 32 bytes, secret. */
  readonly seed: Uint8Array
  readonly publicKey: Uint8Array
}

/** Signs the text of a document with a machine’s key (Ed25519). The kind is signed too. */
export function signDocument(kind: DocumentKind, text: string, key: SigningKey): SignedDocument {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
  const jwk = { kty: 'OKP', crv: 'Ed25519', d: base64(key.seed), x: base64(key.publicKey) }
  const signature = sign(undefined, signedBytes(kind, text), createPrivateKey({ key: jwk, format: 'jwk' }))
  return { by: peerIdOf(key.publicKey), text, signature: base64(signature) }
}

/** Whether the machine that `by` names has signed this text as a document of this kind. Who that may be is not looked at. */
export function isSigned(kind: DocumentKind, document: SignedDocument): boolean {
  const publicKey = publicKeyOf(document.by)
  if (publicKey === undefined) return false
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(publicKey).toString('base64url') }
  const signature = Buffer.from(document.signature, 'base64url')
  return verify(undefined, signedBytes(kind, document.text), createPublicKey({ key: jwk, format: 'jwk' }), signature)
}

/**
 * What a signed text says, its signature first: undefined if that or the content is wrong, so that nobody can forge even a
 * format. Errors: FORMAT_NEWER.
 */
export function readSigned<T>(kind: DocumentKind, document: SignedDocument, content: DocumentShape<T>): T | undefined {
  if (!isSigned(kind, document)) return undefined
  try {
    return readDocument(content, document.text)
  } catch (error) {
    if (isMeshError(error, 'FORMAT_NEWER')) throw error
    return undefined
  }
}

function signedBytes(kind: DocumentKind, text: string): Buffer {
  return Buffer.from(`lab-mesh/${kind}/1\n${text}`)
}
