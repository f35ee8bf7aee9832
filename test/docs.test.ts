import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { ERROR_CODES, MeshError } from '../protocol/errors.ts'
import { withCommonOptions } from '../tools/cli/command.ts'
import { CONFIG_KEYS, CONFIG_NAMES } from '../tools/cli/config/config-keys.ts'
import { exitCodeRows } from '../tools/cli/help.ts'
import { chapterOf, rowsOf } from '../tools/package/handbook.ts'

const ROOT = join(import.meta.dirname, '..')
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/** Every Markdown file that is read by people: at the root, and below docs/. */
const documents = [
  ...readdirSync(ROOT).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
]
const handbook = text('docs/OPERATIONS.md')

/** The part of the handbook below a heading, up to the next one of the same or a higher rank. */
function chapter(heading: string): string {
  const found = chapterOf(handbook, heading)
  expect(found, `the handbook has no ${heading}`).toBeDefined()
  return found!
}

const flagsIn = (part: string): string[] => rowsOf(part).flatMap(([first]) => first!.match(/(?<=`)--[a-z-]+/g) ?? [])

/** `mesh X` or `mesh X Y` of every command that has an action, with the flags that it adds to the common ones. */
async function commandsOfProgram(): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>()
  const common = new Set(withCommonOptions(new Command()).options.map((option) => option.long))
  const visit = (command: Command, name: string): void => {
    for (const one of command.commands) visit(one, `${name} ${one.name()}`)
    if (command.commands.length > 0) return
    const own = command.options.map((option) => option.long!).filter((flag) => !common.has(flag))
    found.set(name, own.toSorted())
  }
  for (const file of readdirSync(join(ROOT, 'tools/cli/commands'))) {
    const { command } = (await import(join(ROOT, 'tools/cli/commands', file))) as { command: () => Command }
    visit(command(), command().name())
  }
  return found
}

/** The same, as the handbook's reference has it: a heading names commands, the table below it their options. */
function commandsOfHandbook(): Map<string, string[]> {
  const sections = chapter('### Commands and options')
    .split(/^#### /m)
    .slice(1)
  const found = new Map<string, string[]>()
  for (const section of sections) {
    const [heading, ...body] = section.split('\n')
    const names = [...heading!.matchAll(/`mesh ((?:[a-z]+ ?)+)/g)].map(([, name]) => name!.trim())
    for (const name of names) found.set(name, flagsIn(body.join('\n')))
  }
  // Options that several commands share have a section of their own, whose first line names the commands.
  for (const section of sections.filter((one) => one.startsWith('Options about '))) {
    const [, , first] = section.split('\n')
    for (const [, name] of first!.matchAll(/`mesh ([a-z]+)`/g)) found.get(name!)!.push(...flagsIn(section))
  }
  return new Map([...found].map(([name, flags]) => [name, flags.toSorted()]))
}

describe('the documents say what is so', () => {
  it('has every command and option in the handbook’s reference, and no other', async () => {
    const program = await commandsOfProgram()
    expect(program.size).toBeGreaterThan(20)
    expect(Object.fromEntries(commandsOfHandbook())).toEqual(Object.fromEntries(program))
    const common = withCommonOptions(new Command()).options.map((option) => option.long!)
    const everywhere = flagsIn(chapter('#### Every command'))
    expect(everywhere.toSorted()).toEqual([...common, '--help', '--version'].toSorted())
  })

  it('has every exit code, as `mesh help exit-codes` has it', () => {
    expect(rowsOf(chapter('### Exit codes'))).toEqual(exitCodeRows())
  })

  it('has every error code with its exit code', () => {
    const documented = rowsOf(chapter('### All error codes')).map(([code, exit]) => [code!.replaceAll('`', ''), exit])
    const known = ERROR_CODES.map((code) => [code, String(new MeshError(code, '').exitCode)])
    expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(known))
    expect(documented).toHaveLength(known.length)
  })

  it('has every key of the configuration file, in the example and in the table', () => {
    const part = chapter('### The configuration file')
    expect(rowsOf(part).map(([key]) => key!.replaceAll('`', ''))).toEqual([...CONFIG_NAMES])
    let table = ''
    const example = /```\n([\s\S]*?)```/
      .exec(part)![1]!
      .split('\n')
      .flatMap((line) => {
        table = /^\[(.+)\]/.exec(line)?.[1] ?? table
        const key = /^([a-z-]+) *=/.exec(line)?.[1]
        return key === undefined ? [] : [table === '' ? key : `${table}.${key}`]
      })
    expect(example).toEqual(Object.keys(CONFIG_KEYS))
  })

  it('name each decision once, in order, in their index', () => {
    const listed = [...text('docs/decisions/README.md').matchAll(/^\| \d+ \| .*\]\((\d{4}-[\w-]+\.md)\) \|/gm)]
    const files = readdirSync(join(ROOT, 'docs/decisions')).filter((name) => /^\d{4}-/.test(name))
    expect(listed.map(([, file]) => file)).toEqual(files.sort())
  })

  it.each(documents)('%s: links, images and paths lead to something', (path) => {
    const body = text(path).replaceAll(/```[\s\S]*?```/g, '')
    const missing: string[] = []
    for (const [, target] of body.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue
      const [file, anchor] = target!.split('#') as [string, string?]
      const at = file === '' ? join(ROOT, path) : resolve(ROOT, dirname(path), file)
      if (!existsSync(at) || (anchor !== undefined && !anchorsOf(at).has(anchor))) missing.push(target!)
    }
    for (const [, span] of body.matchAll(/`([^`\n]+)`/g)) {
      const name = span!.replace(/:\d+$/, '')
      if (!/^(protocol|node|tools|test|docs|decisions)\/[\w./-]*\w\/?$|^[\w-]+(\.test)?\.ts$/.test(name)) continue
      if (!isThere(name)) missing.push(span!)
    }
    expect(missing).toEqual([])
  })
})

const sources = ['protocol', 'node', 'tools', 'test'].flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }),
)

/** A path from the root or from docs/, with or without `.ts` at its end; or the bare name of a source file. */
function isThere(name: string): boolean {
  if (!name.includes('/')) return sources.some((path) => path === name || path.endsWith(`/${name}`))
  return ['', 'docs'].some((base) => ['', '.ts', '.md'].some((end) => existsSync(join(ROOT, base, name + end))))
}

/** Names by which headings of a Markdown file can be linked to, as GitHub makes them. */
function anchorsOf(path: string): Set<string> {
  const headings = readFileSync(path, 'utf8')
    .replaceAll(/```[\s\S]*?```/g, '')
    .matchAll(/^#+ (.+)$/gm)
  return new Set(
    [...headings].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
}
