import { MeshError } from '../../../protocol/errors.ts'

/** First line of every unit that `mesh install` writes; it replaces and removes no other. */
export const MARKER = '# Written by `mesh install`, which replaces it; changes belong in a drop-in (systemctl edit).'

/** A unit of systemd: name of its file, and content. */
export interface UnitFile {
  readonly name: string
  readonly text: string
}

type Lines = readonly (string | undefined)[]

/** Makes a unit of sections. Lines that are undefined are left out. Errors: USAGE for a path or name that no unit can hold. */
export function unit(name: string, about: string, sections: Readonly<Record<string, Lines>>): UnitFile {
  const parts = Object.entries(sections).map(
    ([section, lines]) => `[${section}]\n${lines.filter((line) => line !== undefined).join('\n')}\n`,
  )
  for (const line of Object.values(sections).flat()) assertOneLine(line ?? '', name)
  const comments = about.split('\n').map((line) => `# ${line}`)
  return { name, text: `${[MARKER, ...comments].join('\n')}\n\n${parts.join('\n')}` }
}

/** A line break would begin another setting; a backslash at the end would take the next line for a part of this one (systemd.syntax(7)). */
function assertOneLine(line: string, name: string): void {
  if (!/[\r\n\0]|\\$/.test(line)) return
  throw new MeshError('USAGE', `${name} cannot hold ${JSON.stringify(line)}: a path or name has a line break in it`)
}

/**
 * Makes a command line for ExecStart= (systemd.service(5)). Words are quoted where they must be; systemd replaces no
 * specifier and no variable in them. It looks for no variable in the first word, the program.
 */
export function execLine(words: readonly string[]): string {
  return words.map((word, at) => quote(plainText(at === 0 ? word : word.replaceAll('$', '$$$$')))).join(' ')
}

/** Makes text that systemd takes to the end of the line, without specifiers. */
export function plainText(text: string): string {
  return text.replaceAll('%', '%%')
}

/** Makes a path for RequiresMountsFor=. */
export function pathWord(path: string): string {
  return quote(plainText(path))
}

function quote(word: string): string {
  return /^[\w@%+=:,./$-]+$/.test(word) ? word : `"${word.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
}

/** Makes a path a part of a unit's name, as `systemd-escape --path` does (systemd.unit(5)). */
export function escapePath(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.length === 0) return '-'
  const escaped = [...Buffer.from(parts.join('/'))].map((byte, at) => {
    const letter = String.fromCharCode(byte)
    if (letter === '/') return '-'
    const plain = /[A-Za-z0-9:_.]/.test(letter) && !(at === 0 && letter === '.')
    return plain ? letter : `\\x${byte.toString(16).padStart(2, '0')}`
  })
  return escaped.join('')
}
