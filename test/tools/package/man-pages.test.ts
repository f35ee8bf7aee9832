import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { CONFIG_NAMES } from '../../../tools/cli/config/config-keys.ts'
import { type CommandNode, commandTree } from '../../../tools/package/command-tree.ts'
import { manPages } from '../../../tools/package/man-pages.ts'
import { roffOf, roffText } from '../../../tools/package/roff.ts'

const ROOT = join(import.meta.dirname, '../../..')

describe('man pages', () => {
  it('are there for every command, with every option and argument, and for every key', async () => {
    const tree = await commandTree()
    const handbook = await readFile(join(ROOT, 'docs/OPERATIONS.md'), 'utf8')
    const pages = new Map(
      manPages({ tree, handbook, version: '1.2.3', date: '2026-11-30' }).map(({ file, text }) => [file, text]),
    )
    expect(pages.size).toBe(tree.commands.length + 2)
    const check = (page: string, { options, args, commands }: CommandNode): void => {
      for (const { long, common } of options) if (!common) expect(page).toContain(`\\fB${roffText(long)}\\fR`)
      for (const { shown } of args) expect(page).toContain(`\\fI${roffText(shown)}\\fR`)
      for (const one of commands) check(page, one)
    }
    expect(tree.commands.length).toBeGreaterThan(15)
    for (const command of tree.commands) check(pages.get(`${command.words.join('-')}.1`)!, command)
    for (const { long } of tree.options) expect(pages.get('mesh.1')).toContain(`\\fB${roffText(long)}\\fR`)
    for (const name of CONFIG_NAMES) expect(pages.get('mesh.toml.5')).toContain(`.TP\n\\fB${roffText(name)}\\fR\n`)
  })

  it('show text as it is, whatever roff would make of it', () => {
    expect(roffText(".dot\n'quote\n--flag \\n")).toBe("\\&.dot\n\\&'quote\n\\-\\-flag \\en")
    expect(roffOf('See [the `--x` option](#x).\n\n- **one**\n- two')).toBe(
      '.PP\nSee the \\fB\\-\\-x\\fR option.\n.IP \\(bu 2\n\\fBone\\fR\n.IP \\(bu 2\ntwo',
    )
    expect(roffOf('| a | b |\n| --- | --- |\n| `k` | – |\n| l | m |')).toBe('.TP\n\\fBk\\fR\n\\&\n.TP\nl\nm')
    expect(roffOf('```sh\n.x -y\n```')).toBe('.PP\n.nf\n.RS 4\n\\&.x \\-y\n.RE\n.fi')
  })
})
