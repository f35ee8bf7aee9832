import { rowsOf } from './handbook.ts'

/** Text for a line of a man page: nothing in it is a request or an escape of roff (groff(7)). */
export function roffText(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^([.'])/gm, '\\&$1')
}

/** Text in bold. */
export function bold(text: string): string {
  return `\\fB${roffText(text)}\\fR`
}

/** Lines that are printed as they are. */
export function verbatim(text: string): string {
  return `.PP\n.nf\n.RS 4\n${roffText(text)}\n.RE\n.fi`
}

/** A term, and what it means. Both are roff. */
export function entry(term: string, meaning: string): string {
  return `.TP\n${term}\n${meaning === '' ? '\\&' : meaning}`
}

/** A section of a man page. `parts` are roff. */
export function section(heading: string, ...parts: readonly string[]): string {
  return [`.SH ${roffText(heading.toUpperCase())}`, ...parts].join('\n')
}

/** First lines of a man page; no name is divided at the end of a line. `date` is a day, such as 2026-11-30. */
export function title(name: string, number: number, date: string, source: string): string {
  const about = number === 5 ? 'File formats' : 'Lab restore mesh'
  return `.TH ${[name.toUpperCase(), number, date, source, about].map((part) => `"${part}"`).join(' ')}\n.nh`
}

/** Markdown of the handbook as roff: paragraphs, lists, tables as terms and meanings, and lines in a fence as they are. */
export function roffOf(markdown: string): string {
  return markdown
    .split(/(```[^\n]*\n[\s\S]*?```)/)
    .flatMap((part) => {
      const [, code] = /^```[^\n]*\n([\s\S]*?)\n?```$/.exec(part) ?? []
      return code === undefined ? part.split(/\n{2,}/).map(block) : [verbatim(code)]
    })
    .filter((part) => part !== '')
    .join('\n')
}

function block(text: string): string {
  const lines = text.trim()
  if (lines === '') return ''
  if (lines.startsWith('|'))
    return rowsOf(lines)
      .map(([term = '', ...cells]) =>
        entry(
          inline(term),
          cells
            .filter((cell) => cell !== '–')
            .map(inline)
            .join('; '),
        ),
      )
      .join('\n')
  if (lines.startsWith('- '))
    return lines
      .split(/^- /m)
      .filter((item) => item !== '')
      .map((item) => `.IP \\(bu 2\n${inline(item.trim())}`)
      .join('\n')
  const [, heading] = /^#+ (.*)$/.exec(lines) ?? []
  return heading === undefined ? `.PP\n${inline(lines)}` : `.SS ${inline(heading)}`
}

/** Code and what is bold are set in bold; of a link its text is left. */
export function inline(text: string): string {
  return text
    .replaceAll(/\[((?:`[^`]*`|[^\]])*)\]\([^)]*\)/g, '$1')
    .split(/(`[^`]+`|\*\*[^*]+\*\*)/)
    .map((part) => {
      const [, code] = /^`(.+)`$/s.exec(part) ?? /^\*\*(.+)\*\*$/s.exec(part) ?? []
      return code === undefined ? roffText(part) : bold(code)
    })
    .join('')
}
