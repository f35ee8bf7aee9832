import { describe, expect, it } from 'vitest'
import { formatCsv } from '../../../tools/cli/csv.ts'
import { parseSince } from '../../../tools/cli/parse.ts'

describe('CSV', () => {
  it('quotes as RFC 4180 says', () => {
    expect(
      formatCsv([
        ['a', 'b,c'],
        ['d"e', 'f\r\ng'],
        ['', 1.5],
      ]),
    ).toBe('a,"b,c"\r\n"d""e","f\r\ng"\r\n,1.5\r\n')
  })

  it('holds nothing that a spreadsheet would run', () => {
    for (const text of ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1']) expect(formatCsv([[text]])).toBe(`'${text}\r\n`)
    expect(formatCsv([['=HYPERLINK("http://x")']])).toBe('"\'=HYPERLINK(""http://x"")"\r\n')
    expect(formatCsv([['a=1', -1]])).toBe('a=1,-1\r\n')
  })
})

describe('--since', () => {
  it('takes a day or a time ago, and nothing else', () => {
    expect(parseSince('2026-11-01')).toBe(Date.UTC(2026, 10, 1))
    const before = Date.now()
    const ago = parseSince('3d')
    expect(ago).toBeGreaterThanOrEqual(before - 3 * 86_400_000)
    expect(ago).toBeLessThanOrEqual(Date.now() - 3 * 86_400_000)
    for (const wrong of ['2026-13-01', '3', 'yesterday', '']) expect(() => parseSince(wrong)).toThrow(/Give a/)
  })
})
