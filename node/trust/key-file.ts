import { generateKeyPairSync } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { readDocument } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { anyText, list, object, text } from '../../protocol/json-shape.ts'
import { shortKeyId } from '../../protocol/key-code.ts'
import { MAX_ROLE_KEYS } from './limits.ts'
import { parseKey } from './machine-key.ts'
import { readSealed, sealFile } from './sealed-file.ts'
import { type SiteKey, type SiteRole, siteKeyOf } from './site-keys.ts'
import type { PrefixRole } from './trusted-view.ts'

const CONTENT = {
  name: 'the sealed key',
  fault: 'SEALED_DAMAGED',
  shape: object({ role: text(MAX_TEXT_BYTES), pem: anyText(4 * MAX_TEXT_BYTES) }),
} as const

const isPem = anyText(4 * MAX_TEXT_BYTES)
/** Private keys, as text, that sign besides those in the folder of the keys. */
export const isLent = list(isPem, 2 * MAX_ROLE_KEYS)

/** Keys as another command of this computer passes them on; undefined: none. Errors: USAGE, STATE_CORRUPT. */
export function lentKeys(pems: unknown): SiteKey[] {
  if (pems === undefined) return []
  if (!isLent(pems)) throw new MeshError('USAGE', 'keys are lent as a list of texts')
  return pems.map((pem) => siteKeyOf(parseKey(pem, 'what was lent')))
}

/** A new key of a site, which is nowhere but in this process. */
export function makeSiteKey(): SiteKey {
  return siteKeyOf(generateKeyPairSync('ed25519').privateKey)
}

/** The private key as text (PKCS #8 PEM). */
export function pemOf({ privateKey }: SiteKey): string {
  return privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
}

/**
 * Puts a key into a sealed file, and reads that back. Errors: those of {@link sealFile}, SEALED_DAMAGED if it cannot be read back; then there
 * is no file.
 */
export async function writeKeyFile(
  path: string,
  { own, role, site, siteId }: { own: SiteKey; role: SiteRole | PrefixRole; site: string; siteId: string },
  passphrase: string,
): Promise<void> {
  const content = Buffer.from(JSON.stringify({ role, pem: pemOf(own) }))
  const holds = `${role} key ${shortKeyId(own.key.keyID)}`
  const about = { kind: 'lab-mesh-key', site, siteId, made: new Date().toISOString(), holds } as const
  try {
    await sealFile(path, about, content, passphrase)
    const back = await readKeyFile(path, siteId, async () => passphrase)
    if (back.key.keyID !== own.key.keyID) throw new MeshError('SEALED_DAMAGED', `${path} could not be read back`)
  } catch (error) {
    await rm(path, { force: true }).catch(() => undefined)
    throw error
  }
}

/** The key in a sealed file of this site. Errors: USAGE if it is of another site, PASSPHRASE_WRONG, SEALED_DAMAGED, FORMAT_NEWER. */
export async function readKeyFile(
  path: string,
  siteId: string,
  passphrase: (holds: string) => Promise<string>,
): Promise<SiteKey> {
  const sealed = await readSealed(path, 'lab-mesh-key')
  const { site, holds } = sealed.about
  if (sealed.about.siteId !== siteId)
    throw new MeshError(
      'USAGE',
      `${path} holds the ${holds} of another site, ${site} (${sealed.about.siteId.slice(0, 8)})`,
    )
  const { pem } = readDocument(CONTENT, await sealed.open(await passphrase(holds)))
  return siteKeyOf(parseKey(pem, path))
}
