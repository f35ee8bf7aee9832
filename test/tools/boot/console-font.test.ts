import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { type ConsoleFont, makeConsoleFont } from '../../../tools/boot/console-font.ts'
import { inGlyphs } from '../../../tools/boot/console-glyphs.ts'
import { fontOf } from '../../../tools/cli/boot/build-facts.ts'
import { parseConfig } from '../../../tools/cli/config/config-file.ts'
import { BootScreen } from '../../../tools/cli/screen/boot-screen.ts'
import { CATALOGUES } from '../../../tools/cli/screen/catalogue.ts'
import { isWide } from '../../../tools/cli/screen/draw-screen.ts'
import { hasTool } from '../../../tools/lab/run-tool.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const UNIFONT = '/usr/share/unifont/unifont.hex'
/** U+672C, 本, as Unifont has it. */
const BEN = '01000100010001007FFC0380054005400920111021084FE48102010001000100'
const [HEAD, GLYPHS, ROWS] = [4, 512, 16]
const hasFont = await hasTool(UNIFONT)
if (!hasFont) console.log(`SKIPPED: ${UNIFONT} of the Debian package unifont is missing`)

const glyph = ({ file }: ConsoleFont, at: number): string =>
  file.subarray(HEAD + at * ROWS, HEAD + (at + 1) * ROWS).toString('hex')
/** What each glyph is for, by the table behind the glyphs. */
const tableOf = ({ file }: ConsoleFont): string[] =>
  file
    .subarray(HEAD + GLYPHS * ROWS)
    .toString('utf16le')
    .split('\uffff')
    .slice(0, -1)
const lettersOf = (text: string): number[] => [...text].map((character) => character.charCodeAt(0))

describe.skipIf(!hasFont)('the font of the console', () => {
  let font: ConsoleFont
  beforeAll(async () => {
    font = await makeConsoleFont('本机 é', isWide)
  })

  it('has ASCII in its place, as the kernel clears the screen with glyph 32, and other letters around it', () => {
    expect([...font.file.subarray(0, HEAD)]).toEqual([0x36, 0x04, 3, ROWS])
    const table = tableOf(font)
    expect(table).toHaveLength(GLYPHS)
    expect(table.slice(0x20, 0x7f).join('')).toBe(
      Array.from({ length: 0x5f }, (_, at) => String.fromCharCode(0x20 + at)).join(''),
    )
    expect(glyph(font, 0x20)).toBe('00'.repeat(ROWS))
    expect(glyph(font, 0x41)).toBe('0000000018242442427e424242420000')
    expect(glyph(font, table.indexOf('é'))).toBe('00000c3000003c42427e4040423c0000')
  })

  it('has a character of two columns in two glyphs, which a text names directly', async () => {
    expect(font.wide).toBe('本机')
    const [left, right] = lettersOf(inGlyphs('本', font.wide)).map((letter) => letter - 0xf000)
    expect([left, right]).toEqual([508, 509])
    // Row by row: the left half, then the right half.
    const [first, second] = [glyph(font, left!), glyph(font, right!)]
    const rows = Array.from({ length: ROWS }, (_, row) =>
      [first, second].map((half) => half.slice(2 * row, 2 * row + 2)),
    )
    expect(rows.flat().join('').toUpperCase()).toBe(BEN)
    expect(inGlyphs('a本第', font.wide)).toBe('a\uf1fc\uf1fd第')
  })

  it('has room for all of the Chinese screen and a school’s name, and says if a text is too long', async () => {
    const chinese = JSON.stringify(CATALOGUES.zh)
    const { wide } = await makeConsoleFont(`${chinese}第三中学计算机教室`, isWide)
    expect([...chinese].every((character) => !isWide(character) || wide.includes(character))).toBe(true)
    const many = String.fromCharCode(...Array.from({ length: 100 }, (_, at) => 0x5000 + at))
    await expect(makeConsoleFont(chinese + many, isWide)).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/^the text of the screen has \d+ different characters too many .*boot\.text$/),
    })
    await expect(makeConsoleFont('\u{1f600}', isWide)).rejects.toMatchObject({ code: 'USAGE' })
  })

  it('is made if the configuration file needs it', async () => {
    const of = async (text: string) => fontOf(await parseConfig('mesh.toml', text))
    expect(await fontOf(undefined)).toBeUndefined()
    expect(await of('[boot]\nlang = "fr"\ntext = "Lycée"\n')).toBeUndefined()
    expect((await of('[boot]\ntext = "机房 12"\n'))?.wide).toBe('房机')
    expect((await of('[boot]\nlang = "zh"\n'))?.wide).toContain('盘')
  })

  it('is written with on the kernel’s console, which shows English if it has not taken the font', async () => {
    const work = await temporaryDirectory()
    const shown = async (name: string, wide: string): Promise<string> => {
      const path = join(work, name)
      await writeFile(path, '')
      const screen = new BootScreen({ text: '', language: 'zh' }, [{ name, path, columns: 80 }], wide)
      screen.show({ at: 'starting' })
      await screen.close()
      return readFile(path, 'utf8')
    }
    const { wide } = (await fontOf(await parseConfig('mesh.toml', '[boot]\nlang = "zh"\n')))!
    expect(await shown('tty0', wide)).toContain(inGlyphs(CATALOGUES.zh.starting, wide))
    expect(await shown('tty0', '')).toContain(CATALOGUES.en.starting)
    expect(await shown('ttyS0', wide)).toContain(CATALOGUES.zh.starting)
  })
})
