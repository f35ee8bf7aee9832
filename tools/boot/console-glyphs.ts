import { FONT_GLYPHS } from './limits.ts'

/** The font of the kernel’s console, as busybox’s `loadfont` reads it. */
export const CONSOLE_FONT = '/lib/mesh/font'
/** The characters of that font that take two columns, in the order of their glyphs. The file is gone if the console does not take the font. */
export const WIDE_CHARACTERS = '/lib/mesh/wide'

/** From U+F000 on the kernel takes a code point for a glyph of the font, whatever that shows (Linux: admin-guide/unicode.rst). */
const FIRST_GLYPH = 0xf000

/** Index of the first glyph that is half a character, if `count` characters have two glyphs each: they are the last ones of the font. */
export function firstHalf(count: number): number {
  return FONT_GLYPHS - 2 * count
}

/** A text in which each of the font’s wide characters is its two glyphs. A character that the font does not have stays as it is. */
export function inGlyphs(text: string, wide: string): string {
  const characters = [...wide]
  const first = FIRST_GLYPH + firstHalf(characters.length)
  const halves = new Map(characters.map((one, at) => [one, String.fromCharCode(first + 2 * at, first + 2 * at + 1)]))
  return [...text].map((character) => halves.get(character) ?? character).join('')
}
