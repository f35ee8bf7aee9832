import { CONFIG_KEYS, CONFIG_NAMES } from '../cli/config/config-keys.ts'
import type { CommandNode, OptionNode } from './command-tree.ts'
import { chapterOf } from './handbook.ts'
import { bold, entry, inline, roffOf, roffText, section, title, verbatim } from './roff.ts'

/** What man pages are made of. */
interface ManFacts {
  readonly tree: CommandNode
  /** The handbook, docs/OPERATIONS.md. */
  readonly handbook: string
  readonly version: string
  /** Day of the sources, such as 2026-11-30. */
  readonly date: string
}

/** A man page by the name of its file, such as `mesh-join.1`. */
interface ManPage {
  readonly file: string
  readonly text: string
}

/** mesh(1), one page for each command, and mesh.toml(5): from the definitions of the commands, and chapters of the handbook. */
export function manPages(facts: ManFacts): ManPage[] {
  const { tree } = facts
  return [programPage(facts), ...tree.commands.map((command) => commandPage(facts, command)), filePage(facts)]
}

function programPage({ tree, handbook, version, date }: ManFacts): ManPage {
  const parts = [
    title('mesh', 1, date, `lab-mesh ${version}`),
    section('Name', 'mesh \\- restore the disks of a computer lab from each other'),
    section('Synopsis', `${bold('mesh')} [\\fIoptions\\fR] \\fIcommand\\fR [\\fIoptions\\fR]`),
    section(
      'Description',
      roffOf(
        'Every machine of a lab holds blocks of a signed disk image on its own disk, and serves them to the others. At each boot a machine fetches exactly the blocks that differ, checks each against the signed image, and writes them.',
      ),
      roffOf('All commands run as root, because only root may write to a disk.'),
    ),
    section(
      'Commands',
      ...tree.commands.map(({ words, about }) => entry(`\\fB${roffText(words.join('-'))}\\fR(1)`, inline(about))),
    ),
    section('Options', ...tree.options.map(optionEntry)),
    section('Exit status', roffOf(need(handbook, '### Exit codes'))),
    section('Environment', ...environment(tree)),
    section(
      'Files',
      entry(bold('/etc/lab-mesh/mesh.toml'), 'configuration file, see \\fBmesh.toml\\fR(5)'),
      statePart(handbook),
    ),
    section('See also', [...tree.commands.map(({ words }) => words.join('-')), 'mesh.toml'].map(reference).join(', ')),
  ]
  return { file: 'mesh.1', text: `${parts.join('\n')}\n` }
}

function commandPage({ handbook, version, date }: ManFacts, command: CommandNode): ManPage {
  const name = command.words.join('-')
  const leaves = leavesOf(command)
  const one = leaves.length === 1
  const parts = [
    title(name, 1, date, `lab-mesh ${version}`),
    section('Name', `${roffText(name)} \\- ${inline(command.about)}`),
    section('Synopsis', leaves.map((leaf) => `${synopsis(leaf)}`).join('\n.br\n')),
    section('Description', ...descriptions(handbook, command)),
    ...leaves.flatMap((leaf) => [
      ...(one ? [] : [section(leaf.words.join(' '), `.PP\n${inline(leaf.about)}`)]),
      ...details(leaf, one),
    ]),
    section('Exit status', '.PP\nAs of \\fBmesh\\fR(1).'),
    section('See also', ['mesh', 'mesh.toml'].map(reference).join(', ')),
  ]
  return { file: `${name}.1`, text: `${parts.join('\n')}\n` }
}

function details({ args, options, after }: CommandNode, one: boolean): string[] {
  const rows = [
    ...args.map(({ shown, about }) => entry(`\\fI${roffText(shown)}\\fR`, inline(about))),
    ...options.filter(({ common }) => !common).map(optionEntry),
  ]
  const common = '.PP\nThe options of every command are in \\fBmesh\\fR(1).'
  return [...(one ? [section('Options', ...rows, common)] : rows), ...(after === '' ? [] : [verbatim(after)])]
}

/** The first paragraphs that the handbook has for the command, or for the commands below it. */
function descriptions(handbook: string, { words, about }: CommandNode): string[] {
  const call = words.join(' ')
  const headings = handbook
    .split('\n')
    .filter((line) => line.startsWith('#### ') && new RegExp(`\`${call}\\b`).test(line))
  if (headings.length === 0) return [`.PP\n${inline(about)}`]
  return headings.map((heading) => roffOf(need(handbook, heading).split(/\n\|/)[0]!))
}

function filePage({ handbook, version, date }: ManFacts): ManPage {
  const [intro = '', ...rest] = need(handbook, '### The configuration file').split(/(?=\n\| key)/)
  const rules = rest.join('').replace(/\n(\|.*\n)+/, '\n')
  const parts = [
    title('mesh.toml', 5, date, `lab-mesh ${version}`),
    section('Name', 'mesh.toml \\- configuration of a machine of the lab restore mesh'),
    section('Description', roffOf(intro)),
    section('Keys', ...CONFIG_NAMES.map((name) => entry(bold(name), keyText(handbook, name)))),
    section('Rules', roffOf(rules)),
    section('Values', roffOf(need(handbook, '### How values are written'))),
    section('See also', ['mesh', 'mesh-config', 'mesh-install'].map(reference).join(', ')),
  ]
  return { file: 'mesh.toml.5', text: `${parts.join('\n')}\n` }
}

function keyText(handbook: string, name: (typeof CONFIG_NAMES)[number]): string {
  const { kind, fallback } = CONFIG_KEYS[name]
  const row = need(handbook, '### The configuration file')
    .split('\n')
    .find((line) => line.startsWith(`| \`${name}\` |`))
  const [, , option = '', use = ''] = row?.split('|').map((cell) => cell.trim()) ?? []
  return `${kind}; default: ${inline(fallback)}; option: ${inline(option)}; for ${inline(use)}`
}

function optionEntry({ short, long, value, about, fallback, variable, choices }: OptionNode): string {
  const names = [short, long].filter((name) => name !== undefined).map(bold)
  const notes = [
    choices.length === 0 ? undefined : `choices: ${choices.join(', ')}`,
    fallback === undefined ? undefined : `default: ${fallback}`,
    variable === undefined ? undefined : `variable: ${variable}`,
  ].filter((note) => note !== undefined)
  const notesText = notes.length === 0 ? '' : ` (${roffText(notes.join('; '))})`
  return entry(
    `${names.join(', ')}${value === undefined ? '' : ` \\fI${roffText(value)}\\fR`}`,
    `${inline(about)}${notesText}`,
  )
}

function synopsis({ words, args }: CommandNode): string {
  return [bold(words.join(' ')), '[\\fIoptions\\fR]', ...args.map(({ shown }) => `\\fI${roffText(shown)}\\fR`)].join(
    ' ',
  )
}

function environment({ options }: CommandNode): string[] {
  const named = options.filter(({ variable }) => variable !== undefined)
  return [
    ...named.map(({ variable = '', long }) => entry(bold(variable), `as ${bold(long)}`)),
    entry(bold('MESH_DEBUG'), 'if set, an unexpected error tells where in the program it happened'),
  ]
}

function statePart(handbook: string): string {
  return `${entry(bold('/var/lib/lab-mesh/'), 'state directory, with these files:')}\n.RS\n${roffOf(need(handbook, '### The state directory'))}\n.RE`
}

function leavesOf(command: CommandNode): CommandNode[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leavesOf)
}

function reference(name: string): string {
  return `\\fB${roffText(name)}\\fR(${name.endsWith('.toml') ? 5 : 1})`
}

function need(handbook: string, heading: string): string {
  const found = chapterOf(handbook, heading)
  if (found === undefined) throw new Error(`the handbook has no chapter ${heading}`)
  return found
}
