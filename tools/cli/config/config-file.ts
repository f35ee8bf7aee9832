import { readFile } from 'node:fs/promises'
import { InvalidArgumentError } from 'commander'
import type { AST, ParseError } from 'toml-eslint-parser'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { nearestWord } from '../../../protocol/nearest-word.ts'
import { MAX_CONFIG_BYTES } from '../limits.ts'
import { CONFIG_KEYS, CONFIG_NAMES, type ConfigKind, type ConfigName, type ConfigValues } from './config-keys.ts'

/** One key that a file sets. */
export interface ConfigEntry {
  readonly line: number
  /** The value as an option would be given it; for a list one text for each entry. */
  readonly text: string | readonly string[]
}

/** A configuration file in which everything is right. */
export interface ConfigFile {
  readonly path: string
  readonly entries: ReadonlyMap<ConfigName, ConfigEntry>
  readonly values: ConfigValues
}

/** The file that is read if no other is named; it may be missing. */
export const DEFAULT_CONFIG = '/etc/lab-mesh/mesh.toml'

/**
 * Reads and checks a configuration file (TOML 1.0, docs/OPERATIONS.md). `optional`: undefined if there is none.
 * Errors: CONFIG_UNREADABLE; CONFIG_INVALID, which tells everything that is wrong, line by line.
 */
export async function readConfigFile(path: string, optional: true): Promise<ConfigFile | undefined>
export async function readConfigFile(path: string, optional?: false): Promise<ConfigFile>
export async function readConfigFile(path: string, optional = false): Promise<ConfigFile | undefined> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    const code = errnoOf(cause)
    if (optional && code === 'ENOENT') return undefined
    const why = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? String(cause)})`
    throw new MeshError('CONFIG_UNREADABLE', `the configuration file ${path} ${why}`, { detail: { path }, cause })
  })
  if (bytes === undefined) return undefined
  if (bytes.byteLength > MAX_CONFIG_BYTES)
    throw invalid(path, [`${path}: ${bytes.byteLength} bytes, at most ${MAX_CONFIG_BYTES} are allowed`])
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw invalid(path, [`${path}: is no UTF-8 text`])
  }
  return parseConfig(path, text)
}

function invalid(path: string, problems: readonly string[]): MeshError {
  return new MeshError('CONFIG_INVALID', problems.join('\n'), { detail: { path, problems } })
}

/** The text of a configuration file; `path` is what messages call it. Errors: CONFIG_INVALID. */
export async function parseConfig(path: string, text: string): Promise<ConfigFile> {
  // Start-up counts at every boot, and most machines have no file.
  const { parseTOML } = await import('toml-eslint-parser')
  let program: AST.TOMLProgram
  try {
    program = parseTOML(text, { tomlVersion: '1.0' })
  } catch (error) {
    if (!isParseError(error)) throw error
    throw invalid(path, [`${path}:${lineOf(error)}: ${error.message.toLowerCase()}`])
  }
  const reader = new EntryReader(path)
  for (const node of program.body[0].body) {
    if (node.type === 'TOMLKeyValue') reader.pair(node, [])
    else if (node.kind === 'array')
      reader.wrong(
        node,
        `[[${namesOf(node.key).join('.')}]] is a list of tables; write [${namesOf(node.key).join('.')}]`,
      )
    else reader.table(node, namesOf(node.key))
  }
  if (reader.problems.length > 0) throw invalid(path, reader.problems)
  return { path, entries: reader.entries, values: reader.values as ConfigValues }
}

type Place = Pick<ParseError, 'lineNumber' | 'column'>

/** Whether the parser of TOML found a fault. */
export function isParseError(error: unknown): error is SyntaxError & Place {
  return error instanceof SyntaxError && 'lineNumber' in error && 'column' in error
}

/** The line of a fault. The parser notices a missing value only at the beginning of the next line. */
export function lineOf({ message, lineNumber, column }: SyntaxError & Place): number {
  return message.startsWith('Unspecified value') && column === 0 ? lineNumber - 1 : lineNumber
}

function namesOf(key: AST.TOMLKey): string[] {
  return key.keys.map((part) => (part.type === 'TOMLBare' ? part.name : part.value))
}

/** Goes through the tables of a file and collects entries and faults. */
class EntryReader {
  readonly entries = new Map<ConfigName, ConfigEntry>()
  readonly values: Partial<Record<ConfigName, unknown>> = {}
  readonly problems: string[] = []
  readonly #path: string

  constructor(path: string) {
    this.#path = path
  }

  wrong(node: { readonly loc: AST.SourceLocation }, text: string): void {
    this.problems.push(`${this.#path}:${node.loc.start.line}: ${text}`)
  }

  table(node: AST.TOMLTable, above: readonly string[]): void {
    const name = above.join('.')
    const tables = [...new Set(CONFIG_NAMES.filter((key) => key.includes('.')).map((key) => key.split('.')[0]!))]
    if (!tables.includes(name)) {
      this.wrong(node, `unknown table [${name}]${suggest(name, tables)}`)
      return
    }
    for (const pair of node.body) this.pair(pair, above)
  }

  /** `a.b = 1`, `[a] b = 1` and `a = { b = 1 }` say the same. */
  pair({ key, value }: AST.TOMLKeyValue, above: readonly string[]): void {
    const name = [...above, ...namesOf(key)].join('.')
    if (value.type === 'TOMLInlineTable' && !isConfigName(name)) {
      for (const pair of value.body) this.pair(pair, [...above, ...namesOf(key)])
      return
    }
    if (!isConfigName(name)) {
      this.wrong(key, `unknown key ${name}${suggest(name, CONFIG_NAMES)}`)
      return
    }
    const { kind } = CONFIG_KEYS[name]
    const text = textsOf(value, kind)
    if (text === undefined) {
      this.wrong(key, `${name} = ${shown(value)}: ${WANTED[kind]}`)
      return
    }
    try {
      const { parse } = CONFIG_KEYS[name]
      this.values[name] = typeof text === 'string' ? parse(text) : text.map((one) => parse(one))
      this.entries.set(name, { line: key.loc.start.line, text })
    } catch (error) {
      if (!(error instanceof InvalidArgumentError)) throw error
      this.wrong(key, `${name} = ${shown(value)}: ${error.message}`)
    }
  }
}

const WANTED: Readonly<Record<ConfigKind, string>> = {
  text: 'Give a string in quotes.',
  number: 'Give a whole number, or a string in quotes.',
  boolean: 'Give true or false.',
  list: 'Give a list of strings, such as ["/ip4/0.0.0.0/tcp/7433"].',
}

function isConfigName(name: string): name is ConfigName {
  return Object.hasOwn(CONFIG_KEYS, name)
}

/** The texts that an option would be given on the command line; undefined if the value is of another kind. */
function textsOf(node: AST.TOMLContentNode, kind: ConfigKind): string | string[] | undefined {
  if (node.type === 'TOMLArray') {
    const texts = node.elements.map((element) => textsOf(element, 'text'))
    return kind === 'list' && texts.every((text) => typeof text === 'string') ? texts : undefined
  }
  if (node.type === 'TOMLInlineTable' || kind === 'list') return undefined
  if (kind === 'boolean') return node.kind === 'boolean' ? String(node.value) : undefined
  if (node.kind === 'integer' && kind === 'number') return String(node.value)
  return node.kind === 'string' ? node.value : undefined
}

function shown(node: AST.TOMLContentNode): string {
  if (node.type === 'TOMLArray') return `[${node.elements.map(shown).join(', ')}]`
  if (node.type === 'TOMLInlineTable') return '{…}'
  if (node.kind === 'string') return JSON.stringify(node.value)
  if (node.kind === 'boolean') return String(node.value)
  return 'number' in node ? node.number : node.datetime
}

/** Suggests a key. One of the same name in another table is meant more often than one that is spelt alike. */
function suggest(name: string, known: readonly string[]): string {
  const last = name.split('.').at(-1)
  const moved = known.find((one) => one.split('.').at(-1) === last)
  const near = moved ?? nearestWord(name, known)
  return near === undefined ? `; known are ${known.join(', ')}` : `; did you mean ${near}?`
}
