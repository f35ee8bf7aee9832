import { formatTime } from '../../protocol/local-time.ts'

/** What a spreadsheet would take for a formula (OWASP, CSV injection). */
const FORMULA = /^[=+\-@\t\r]/

/** One cell; a time in Unix milliseconds. */
export type CsvCell = string | number | { readonly time: number }

/** How a spreadsheet of some language reads numbers and times. */
export interface CsvStyle {
  readonly separator: string
  readonly number: (value: number) => string
  readonly time: (time: number) => string
}

/** As RFC 4180 says, with times that name their distance from UTC. */
export const PLAIN_CSV: CsvStyle = { separator: ',', number: String, time: formatTime }

/**
 * As spreadsheets of a language read it, such as `de-DE`: where the decimal mark is a comma, a semicolon separates cells; times are by the local clock, and
 * look as people there write them. Errors: RangeError if there is no such language.
 */
export function localCsv(locale: string): CsvStyle {
  if (Intl.NumberFormat.supportedLocalesOf(locale).length === 0) throw new RangeError(`no language ${locale}`)
  const numbers = new Intl.NumberFormat(locale, {
    useGrouping: false,
    maximumFractionDigits: 3,
    numberingSystem: 'latn',
  })
  const isComma = numbers.formatToParts(1.5).some(({ type, value }) => type === 'decimal' && value === ',')
  const two = '2-digit'
  const day = { year: 'numeric', month: two, day: two } as const
  const hour = { hour: two, minute: two, second: two, hourCycle: 'h23' } as const
  const times = new Intl.DateTimeFormat(locale, { ...day, ...hour, numberingSystem: 'latn' })
  return {
    separator: isComma ? ';' : ',',
    number: (value) => numbers.format(value),
    // A spreadsheet takes no comma between day and time.
    time: (time) =>
      times
        .format(time)
        .replaceAll(/,|\u200e/g, '')
        .replaceAll('\u202f', ' '),
  }
}

/** Rows as CSV (RFC 4180). Texts that a spreadsheet would run as formulas get an apostrophe in front. */
export function formatCsv(rows: readonly (readonly CsvCell[])[], style = PLAIN_CSV): string {
  return rows.map((row) => `${row.map((cell) => formatCell(cell, style)).join(style.separator)}\r\n`).join('')
}

function formatCell(cell: CsvCell, { separator, number, time }: CsvStyle): string {
  if (typeof cell === 'number') return quoted(number(cell), separator)
  if (typeof cell === 'object') return quoted(time(cell.time), separator)
  return quoted(FORMULA.test(cell) ? `'${cell}` : cell, separator)
}

function quoted(text: string, separator: string): string {
  return /["\r\n]/.test(text) || text.includes(separator) ? `"${text.replaceAll('"', '""')}"` : text
}
