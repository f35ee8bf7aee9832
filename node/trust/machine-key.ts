import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { peerIdOf } from '../../protocol/peer-id.ts'
import { storageError, writeFileAtomic } from '../state/atomic-file.ts'

/** The Ed25519 key that a machine proves itself with. It lets the machine serve and fetch, nothing else. */
export interface MachineKey {
  /** 32 bytes, secret. */
  readonly seed: Uint8Array
  /** 32 bytes. */
  readonly publicKey: Uint8Array
  /** Peer id: how members name this machine. */
  readonly id: string
}

/** Reads the key (PKCS #8 PEM, mode 0600) or makes one. Errors: STATE_CORRUPT, STATE_UNWRITABLE, DISK_FULL. */
export async function loadOrCreateMachineKey(path: string): Promise<MachineKey> {
  return machineKeyOf(await loadOrCreateKey(path))
}

/** An Ed25519 private key kept at `path`; made and stored durably if there is none. */
export async function loadOrCreateKey(path: string): Promise<KeyObject> {
  const pem = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined
    const known = storageError(error, path)
    if (isMeshError(known, 'SYSTEM_LIMIT')) throw known
    throw new MeshError('STATE_UNWRITABLE', `the key ${path} cannot be read (${errnoOf(error)})`, { cause: error })
  })
  if (pem !== undefined) return parseKey(pem, path)
  const { privateKey } = generateKeyPairSync('ed25519')
  await writeFileAtomic(path, privateKey.export({ format: 'pem', type: 'pkcs8' }), 0o600)
  return privateKey
}

/** Reads a PEM text; `path` names it in messages. Errors: STATE_CORRUPT. */
export function parseKey(pem: string, path: string): KeyObject {
  try {
    const key = createPrivateKey(pem)
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch {
    // This is reported below, as a key of another kind is.
  }
  throw new MeshError('STATE_CORRUPT', `${path} holds no Ed25519 private key`, { detail: { path } })
}

/** The raw 32 bytes of the public half. */
export function rawPublicKey(key: KeyObject): Uint8Array {
  return Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x ?? '', 'base64url')
}

/** The key by which this machine, or whoever vouches for it, is known as a peer. */
export function machineKeyOf(key: KeyObject): MachineKey {
  const seed = Buffer.from(key.export({ format: 'jwk' }).d ?? '', 'base64url')
  const publicKey = rawPublicKey(key)
  return { seed, publicKey, id: peerIdOf(publicKey) }
}
