import { createCipheriv, createDecipheriv, randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { open } from 'node:fs/promises'
import { canonicalize } from '@tufjs/canonical-json'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { readDocument } from '../../protocol/document.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { anyText, literal, natural, object, text, time, which } from '../../protocol/json-shape.ts'
import { storageError, writeFileAtomic } from '../state/atomic-file.ts'
import {
  MAX_SEALED_BYTES,
  MIN_PASSPHRASE_CHARACTERS,
  NONCE_BYTES,
  PROOF_BYTES,
  SALT_BYTES,
  SCRYPT_BLOCK_SIZE,
  SCRYPT_COST,
  SCRYPT_COSTS,
  SEAL_KEY_BYTES,
  TAG_BYTES,
} from './limits.ts'

/** What anybody can read of a sealed file. It is covered by the seal. */
export interface SealedAbout {
  readonly kind: 'lab-mesh-backup' | 'lab-mesh-key'
  /** Name of the site, for people, and its id. */
  readonly site: string
  readonly siteId: string
  /** ISO 8601. */
  readonly made: string
  /** What it holds, for people. */
  readonly holds: string
}

const hex = (bytes: number) => which(text(2 * bytes), (it) => new RegExp(`^[0-9a-f]{${2 * bytes}}$`).test(it))
const isCost = which(natural(), (n) => n >= SCRYPT_COSTS[0] && n <= SCRYPT_COSTS[1] && Number.isInteger(Math.log2(n)))

const SEALED = {
  name: 'the sealed file',
  fault: 'SEALED_DAMAGED',
  shape: object({
    format: natural(),
    kind: literal('lab-mesh-backup', 'lab-mesh-key'),
    site: text(MAX_TEXT_BYTES),
    siteId: hex(32),
    made: time,
    holds: text(MAX_TEXT_BYTES),
    kdf: object({
      name: literal('scrypt'),
      n: isCost,
      r: which(natural(), (r) => r === SCRYPT_BLOCK_SIZE),
      p: which(natural(), (p) => p === 1),
      salt: hex(SALT_BYTES),
    }),
    cipher: literal('aes-256-gcm'),
    nonce: hex(NONCE_BYTES),
    proof: hex(PROOF_BYTES),
    sealed: anyText(MAX_SEALED_BYTES),
    sum: hex(32),
  }),
} as const

/** Refuses a passphrase that is too easy to guess. Errors: PASSPHRASE_WEAK. */
function assertStrong(passphrase: string): void {
  if ([...passphrase.normalize('NFKC')].length >= MIN_PASSPHRASE_CHARACTERS) return
  throw new MeshError('PASSPHRASE_WEAK', `the passphrase has fewer than ${MIN_PASSPHRASE_CHARACTERS} characters`)
}

/**
 * Seals bytes with a passphrase into a file of mode 0600 (docs/PROTOCOL.md, "Sealed files"): scrypt, then AES-256-GCM over the content
 * with all else that the file says. The file is durable when this resolves. Errors: PASSPHRASE_WEAK, DISK_FULL, STATE_UNWRITABLE.
 */
export async function sealFile(
  path: string,
  about: SealedAbout,
  content: Uint8Array,
  passphrase: string,
): Promise<void> {
  assertStrong(passphrase)
  const { kind, site, siteId, made, holds } = about
  const [salt, nonce] = [randomBytes(SALT_BYTES), randomBytes(NONCE_BYTES)]
  const derived = await derive(passphrase, salt, SCRYPT_COST)
  const head = {
    format: 1,
    ...{ kind, site, siteId, made, holds },
    kdf: { name: 'scrypt', n: SCRYPT_COST, r: SCRYPT_BLOCK_SIZE, p: 1, salt: toHex(salt) },
    cipher: 'aes-256-gcm',
    nonce: toHex(nonce),
    proof: toHex(derived.proof),
  }
  const cipher = createCipheriv('aes-256-gcm', derived.key, nonce)
  cipher.setAAD(Buffer.from(canonicalize(head)))
  const sealed = Buffer.concat([cipher.update(content), cipher.final(), cipher.getAuthTag()]).toString('base64')
  const whole = { ...head, sealed }
  const json = `${JSON.stringify({ ...whole, sum: sumOf(whole) })}\n`
  await writeFileAtomic(path, json, 0o600).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') throw new MeshError('USAGE', `${path} cannot be written: there is no such folder`)
    throw error
  })
}

/** A sealed file that was read, and not opened yet. */
interface SealedFile {
  readonly about: SealedAbout
  /** Errors: PASSPHRASE_WRONG, SEALED_DAMAGED. */
  open(passphrase: string): Promise<Buffer>
}

/** Reads a sealed file of a kind. Errors: SEALED_DAMAGED, FORMAT_NEWER, USAGE if it cannot be read. */
export async function readSealed(path: string, kind: SealedAbout['kind']): Promise<SealedFile> {
  // Keys that a later version has added are covered by the seal, too.
  const { sum, ...whole } = readDocument({ ...SEALED, name: path }, await readBounded(path))
  if (sumOf(whole) !== sum) throw damaged(path)
  const { sealed, ...head } = whole
  if (head.kind !== kind) {
    const other = head.kind === 'lab-mesh-key' ? 'a key of a site' : 'the backup of a master'
    throw new MeshError('USAGE', `${path} holds something else: ${other}`)
  }
  return {
    about: head,
    open: async (passphrase) => {
      const derived = await derive(passphrase, Buffer.from(head.kdf.salt, 'hex'), head.kdf.n)
      if (!timingSafeEqual(derived.proof, Buffer.from(head.proof, 'hex')))
        throw new MeshError('PASSPHRASE_WRONG', `the passphrase does not open ${path}`)
      const bytes = Buffer.from(sealed, 'base64')
      if (bytes.byteLength < TAG_BYTES) throw damaged(path)
      const decipher = createDecipheriv('aes-256-gcm', derived.key, Buffer.from(head.nonce, 'hex'))
      decipher.setAAD(Buffer.from(canonicalize(head)))
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES))
      try {
        return Buffer.concat([decipher.update(bytes.subarray(0, -TAG_BYTES)), decipher.final()])
      } catch {
        throw damaged(path)
      }
    },
  }
}

function damaged(path: string): MeshError {
  return new MeshError('SEALED_DAMAGED', `${path} is damaged: it is not what was written`, { detail: { path } })
}

async function readBounded(path: string): Promise<Buffer> {
  try {
    await using file = await open(path, 'r')
    const { size } = await file.stat()
    if (size > MAX_SEALED_BYTES) throw damaged(path)
    return await file.readFile()
  } catch (error) {
    const known = storageError(error, path)
    if (known instanceof MeshError && known.code !== 'STATE_UNWRITABLE') throw known
    throw new MeshError('USAGE', `${path} cannot be read (${errnoOf(error)})`, { cause: error })
  }
}

function sumOf(whole: object): string {
  return toHex(digestOf(Buffer.from(canonicalize(whole))))
}

/** The key of the seal, and the proof that the passphrase was right. */
function derive(passphrase: string, salt: Uint8Array, cost: number): Promise<{ key: Buffer; proof: Buffer }> {
  const options = { N: cost, r: SCRYPT_BLOCK_SIZE, p: 1, maxmem: 2 * 128 * cost * SCRYPT_BLOCK_SIZE }
  return new Promise((resolve, reject) => {
    scrypt(passphrase.normalize('NFKC'), salt, SEAL_KEY_BYTES + PROOF_BYTES, options, (error, bytes) => {
      if (error !== null) reject(error)
      else resolve({ key: bytes.subarray(0, SEAL_KEY_BYTES), proof: bytes.subarray(SEAL_KEY_BYTES) })
    })
  })
}
