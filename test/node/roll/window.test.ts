import { describe, expect, it } from 'vitest'
import { rollWindow } from '../../../node/roll/window.ts'
import { codeOf } from '../../support/error-code.ts'

/** By the local clock; 3 November 2026 is a Tuesday. */
const at = (hour: number, minute: number, day = 3): Date => new Date(2026, 10, day, hour, minute, 30)

describe('the window of a roll', () => {
  it.each([
    ['22:00-05:00', [at(22, 0), at(23, 59), at(0, 0), at(4, 59)], [at(21, 59), at(5, 0), at(12, 0)]],
    ['8:30-16:00', [at(8, 30), at(15, 59)], [at(8, 29), at(16, 0), at(0, 0)]],
    ['20:00 - 24:00', [at(20, 0), at(23, 59)], [at(0, 0), at(19, 59)]],
    ['Mo-Fr 22:00-05:00', [at(22, 10), at(22, 0, 6), at(4, 59, 7)], [at(22, 10, 7), at(4, 0, 8), at(4, 0, 2)]],
    ['Mo-Fr 22:00-05:00; Sa-Su 00:00-24:00', [at(22, 10), at(12, 0, 7), at(0, 0, 8)], [at(12, 0), at(5, 0, 9)]],
    ['', [at(0, 0), at(12, 0)], []],
  ])('%s', (text, inside, outside) => {
    const window = rollWindow(text)
    expect(inside.map(window)).toEqual(inside.map(() => undefined))
    expect(outside.map((time) => window(time) instanceof Date)).toEqual(outside.map(() => true))
  })

  it('tells when it opens next', () => {
    const window = rollWindow('Mo-Fr 22:00-05:00')
    expect(window(at(12, 0))).toEqual(new Date(2026, 10, 3, 22, 0))
    // Saturday, after the night that began on Friday.
    expect(window(at(5, 0, 7))).toEqual(new Date(2026, 10, 9, 22, 0))
  })

  it.each(['22-05', '22:00-22:00', 'at night', '* 22-23 * * *', '22:00-05:00;', Array(17).fill('1:00-2:00').join(';')])(
    'is refused: %s',
    async (text) => {
      expect(await codeOf(async () => rollWindow(text))).toBe('USAGE')
    },
  )
})
