import { readFile } from 'node:fs/promises'
import { MeshError } from '../../protocol/errors.ts'
import { packagedFile } from './build-tool.ts'
import { firstHalf } from './console-glyphs.ts'
import { FONT_GLYPHS, GLYPH_ROWS } from './limits.ts'

/** GNU Unifont: lines such as `672C:0100…`, a code point and the rows of its glyph, 8 or 16 points wide. */
const UNIFONT = { path: '/usr/share/unifont/unifont.hex', package: 'unifont' }
const FIRST_ASCII = 0x20
const ASCII = Array.from({ length: 95 }, (_, at) => String.fromCharCode(FIRST_ASCII + at))
/** Marks that texts of errors are written with, in every language. */
const MARKS = '’“”–…×\ufffd'
/** Bits of the mode: there are 512 glyphs, and a table of code points is behind them. */
const [HAS_512, HAS_TABLE] = [1, 2]

/** A font for the kernel’s console. */
export interface ConsoleFont {
  /** Version 1 of the format PSF, which Debian’s busybox reads: 8 × 16 points a glyph. */
  readonly file: Buffer
  /** Characters that take two columns. Each has two glyphs; those of the last one are the last two of the font. */
  readonly wide: string
}

/**
 * A font that has these characters. The kernel’s console knows 512 glyphs of one width, so that a character of East Asia is put together from two
 * halves. `isWide`: whether a character takes two columns. Errors: TOOL_MISSING; USAGE if there are too many characters, or one that no glyph
 * is known of.
 */
export async function makeConsoleFont(
  characters: string,
  isWide: (character: string) => boolean,
): Promise<ConsoleFont> {
  const others = [...new Set(MARKS + characters)].filter((character) => !/[\p{Cc}\x20-\x7e]/u.test(character))
  const wide = others.filter(isWide).toSorted()
  const marks = others.filter((character) => !isWide(character))
  // The kernel clears the screen with glyph 32 of any font.
  const narrow = [...Array.from({ length: FIRST_ASCII }, (_, at) => marks[at]), ...ASCII, ...marks.slice(FIRST_ASCII)]
  const surplus = wide.length - Math.floor((FONT_GLYPHS - narrow.length) / 2)
  if (surplus > 0)
    throw new MeshError(
      'USAGE',
      `the text of the screen has ${surplus} different characters too many for the console: shorten boot.text`,
    )
  const drawn = glyphsOf(await readFile(await packagedFile(UNIFONT.path, UNIFONT.package), 'latin1'), [
    ...ASCII,
    ...others,
  ])
  const glyphs = Buffer.alloc(FONT_GLYPHS * GLYPH_ROWS)
  narrow.forEach((character, at) => {
    if (character !== undefined) glyphs.set(drawn(character, 1), at * GLYPH_ROWS)
  })
  wide.forEach((character, at) => {
    const rows = drawn(character, 2)
    for (const half of [0, 1])
      for (let row = 0; row < GLYPH_ROWS; row++)
        glyphs[(firstHalf(wide.length) + 2 * at + half) * GLYPH_ROWS + row] = rows[2 * row + half]!
  })
  return {
    file: Buffer.concat([PSF_HEAD, glyphs, ...Array.from({ length: FONT_GLYPHS }, (_, at) => tableEntry(narrow[at]))]),
    wide: wide.join(''),
  }
}

/** The rows of a character’s glyph, of one or two bytes. */
function glyphsOf(hex: string, wanted: readonly string[]): (character: string, bytes: 1 | 2) => Buffer {
  const codes = new Set(
    wanted.map((character) => character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')),
  )
  const found = new Map<number, Buffer>()
  for (const line of hex.split('\n')) {
    const [code = '', rows = ''] = line.split(':')
    if (codes.has(code)) found.set(Number.parseInt(code, 16), Buffer.from(rows, 'hex'))
  }
  return (character, bytes) => {
    const glyph = found.get(character.codePointAt(0)!)
    if (glyph?.byteLength !== bytes * GLYPH_ROWS)
      throw new MeshError('USAGE', `the console has no glyph for the character ${character}: leave it out of boot.text`)
    return glyph
  }
}

/** Mark, two bits of the mode, and the bytes of a glyph. */
const PSF_HEAD = Buffer.of(0x36, 0x04, HAS_512 | HAS_TABLE, GLYPH_ROWS)

/** The code points of a glyph, and their end; 16 bits each, the lower ones first. */
const tableEntry = (character = ''): Buffer => Buffer.from(`${character}\uffff`, 'utf16le')
