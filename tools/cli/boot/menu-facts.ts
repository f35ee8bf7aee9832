import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { readStored } from '../../../node/state/stored-document.ts'
import { errnoOf, isMeshError, MeshError } from '../../../protocol/errors.ts'
import { type Check, natural, object, text, truth, which } from '../../../protocol/json-shape.ts'
import { MENU_PASSWORD_LENGTH, MENU_PASSWORD_MAX, SCRYPT_MAX_MEMORY, SCRYPT_OF_MENU } from '../screen/limits.ts'

/** What the agent knows of its local menu. The password itself is nowhere. */
export interface MenuFacts {
  /** scrypt (RFC 7914) of the password; salt and hash hexadecimal. */
  readonly scrypt: {
    readonly salt: string
    readonly hash: string
    readonly N: number
    readonly r: number
    readonly p: number
  }
  /** The menu may start the system although its disk was not restored. */
  readonly mayStart: boolean
}

const HASH_BYTES = 32
const isHex = which(text(256), (value) => /^([0-9a-f]{2})+$/.test(value))
const isMenuFacts: Check<MenuFacts> = object({
  scrypt: object({ salt: isHex, hash: isHex, N: natural(), r: natural(), p: natural() }),
  mayStart: truth,
})

/**
 * The menu’s facts as the agent keeps them. Errors: USAGE if the password is too short, or has characters that are not at one place on
 * all keyboards: the console of the agent has no other layout than the American one.
 */
export async function makeMenuFacts(password: string, mayStart: boolean): Promise<string> {
  if (password.length < MENU_PASSWORD_LENGTH || password.length > MENU_PASSWORD_MAX)
    throw new MeshError(
      'USAGE',
      `the menu’s password has to have ${MENU_PASSWORD_LENGTH} to ${MENU_PASSWORD_MAX} characters`,
    )
  if (!/^[\x20-\x7e]+$/.test(password))
    throw new MeshError('USAGE', 'the menu’s password may have letters, digits and signs of ASCII only')
  const salt = randomBytes(16)
  const hash = await derive(password, salt, SCRYPT_OF_MENU, HASH_BYTES)
  const facts: MenuFacts = {
    scrypt: { salt: salt.toString('hex'), hash: hash.toString('hex'), ...SCRYPT_OF_MENU },
    mayStart,
  }
  return `${JSON.stringify({ format: 1, ...facts })}\n`
}

/** The facts of the agent’s menu. Undefined: the lab has set no password. Errors: STATE_CORRUPT, FORMAT_NEWER. */
export async function readMenuFacts(path: string): Promise<MenuFacts | undefined> {
  const bytes = await readFile(path).catch((error: unknown) => {
    if (errnoOf(error) === undefined) throw error
    return undefined
  })
  return bytes === undefined ? undefined : readStored(path, isMenuFacts, bytes)
}

/** The same, for an agent that does without a menu whose file is wrong. */
export async function menuFactsOr(path: string, tell: (text: string) => void): Promise<MenuFacts | undefined> {
  return readMenuFacts(path).catch((error: unknown) => {
    if (!isMeshError(error)) throw error
    tell(`the local menu is left out: ${error.message}`)
    return undefined
  })
}

/** Whether this is the menu’s password. It takes 0.1 to 0.5 s. */
export async function isMenuPassword({ scrypt: kept }: MenuFacts, typed: string): Promise<boolean> {
  const expected = Buffer.from(kept.hash, 'hex')
  const { N, r, p } = kept
  const hash = await derive(typed, Buffer.from(kept.salt, 'hex'), { N, r, p }, expected.byteLength)
  return timingSafeEqual(hash, expected)
}

function derive(password: string, salt: Buffer, cost: ScryptOptions, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password, salt, length, { ...cost, maxmem: SCRYPT_MAX_MEMORY }, (error, hash) => {
      if (error === null) resolve(hash)
      else reject(error)
    })
  })
}
