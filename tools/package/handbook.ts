/** The part of a Markdown text below a heading, up to the next one of the same or a higher rank; undefined if it is not there. */
export function chapterOf(text: string, heading: string): string | undefined {
  const lines = text.split('\n')
  const start = lines.indexOf(heading)
  if (start === -1) return undefined
  const rank = heading.indexOf(' ')
  const end = lines.findIndex((line, i) => i > start && /^#+ /.test(line) && line.indexOf(' ') <= rank)
  return lines.slice(start + 1, end === -1 ? lines.length : end).join('\n')
}

/** The cells of each row of the tables in a Markdown text, without their headings. */
export function rowsOf(text: string): string[][] {
  const lines = text.split('\n').filter((line) => line.startsWith('|'))
  const isRule = (line: string | undefined): boolean => line !== undefined && /^\|[ :|-]+\|$/.test(line)
  const body = lines.filter((line, i) => !isRule(line) && !isRule(lines[i + 1]))
  return body.map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  )
}
