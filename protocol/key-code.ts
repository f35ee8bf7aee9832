import { digestOf } from './digest.ts'

/** Crockford's Base32 (https://www.crockford.com/base32.html): no I, L, O or U, which people take for other characters. */
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
/**
 * Characters of a code, five bits each. Two machines have one code by chance once in 2^50. Whoever wants a key with the code of
 * another machine has to make 2^50 keys: 350 years at 100,000 keys a second. Six digits would take ten seconds.
 */
const CODE_CHARACTERS = 10
const GROUP = 5
/** What people write for another character. */
const ALIKE: Readonly<Record<string, string>> = { I: '1', L: '1', O: '0' }

/**
 * The short code of a machine's key, which people compare on two screens: `K7QM3-XPAH2`. The first 50 bits of the SHA-256 of
 * `lab-mesh/code/1`, a line feed and the peer id (docs/PROTOCOL.md, join protocol).
 */
export function keyCode(peerId: string): string {
  let rest = Buffer.from(digestOf(Buffer.from(`lab-mesh/code/1\n${peerId}`))).readBigUInt64BE(0) >> 14n
  let code = ''
  for (let i = 0; i < CODE_CHARACTERS; i++, rest >>= 5n) code = ALPHABET[Number(rest & 31n)] + code
  return grouped(code)
}

/** A code as people type it: small letters, spaces and other dashes, O for 0, I and L for 1. Undefined if it is none. */
export function parseKeyCode(text: string): string | undefined {
  const code = text
    .toUpperCase()
    .replaceAll(/[\s-]/g, '')
    .replaceAll(/[ILO]/g, (letter) => ALIKE[letter]!)
  const isCode = code.length === CODE_CHARACTERS && [...code].every((letter) => ALPHABET.includes(letter))
  return isCode ? grouped(code) : undefined
}

function grouped(code: string): string {
  return `${code.slice(0, GROUP)}-${code.slice(GROUP)}`
}

/** Characters of the id of a site's key that people are shown: 64 bits tell the few keys of a site apart. */
const SHORT_ID_CHARACTERS = 16

/** The beginning of the id of a site's key, which has 64 hexadecimal digits, as people are shown it and may type it. */
export function shortKeyId(id: string): string {
  return id.slice(0, SHORT_ID_CHARACTERS)
}
