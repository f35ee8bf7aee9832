import { describe, expect, it } from 'vitest'
import { formatCsv, localCsv } from '../../../tools/cli/csv.ts'
import { parseCsvStyle, parseSince } from '../../../tools/cli/parse.ts'

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

describe('CSV of a language', () => {
  const time = new Date(2026, 10, 30, 21, 1, 5).getTime()
  it.each([
    ['de-DE', '"a;b";1,5;1234;30.11.2026 21:01:05'],
    ['fr-FR', '"a;b";1,5;1234;30/11/2026 21:01:05'],
    ['en-GB', 'a;b,1.5,1234,30/11/2026 21:01:05'],
    ['zh-CN', 'a;b,1.5,1234,2026/11/30 21:01:05'],
  ])('is what spreadsheets read in %s', (locale, line) => {
    expect(formatCsv([['a;b', 1.5, 1234, { time }]], localCsv(locale))).toBe(`${line}\r\n`)
  })

  it('is none of a language that there is not', () => {
    expect(() => parseCsvStyle('klingon-language')).toThrow(/such as de-DE/)
  })
})

describe('--since', () => {
  it('takes a day or a time ago, and nothing else', () => {
    expect(parseSince('2026-11-01')).toBe(Date.UTC(2026, 10, 1))
    const before = Date.now()
    const ago = parseSince('3d')
    expect(ago).toBeGreaterThanOrEqual(before - 3 * 86_400_000)
    expect(ago).toBeLessThanOrEqual(Date.now() - 3 * 86_400_000)
    expect(parseSince('1.11.2026')).toBe(parseSince('2026-11-01'))
    for (const wrong of ['2026-13-01', '31.2.2026', '1/11/2026', '3', 'yesterday', ''])
      expect(() => parseSince(wrong)).toThrow(/Give a/)
  })
})
