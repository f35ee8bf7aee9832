import { describe, expect, it } from 'vitest'
import { parseWindow } from '../../../node/roll/window.ts'
import { codeOf } from '../../support/error-code.ts'

/** A Tuesday, by the local clock. */
const at = (hour: number, minute: number, day = 3): Date => new Date(2026, 10, day, hour, minute, 30)

describe('the window of a roll', () => {
  it.each([
    ['22:00-05:00', [at(22, 0), at(23, 59), at(0, 0), at(4, 59)], [at(21, 59), at(5, 0), at(12, 0)]],
    ['8:30-16:00', [at(8, 30), at(15, 59)], [at(8, 29), at(16, 0), at(0, 0)]],
    ['20:00-24:00', [at(20, 0), at(23, 59)], [at(0, 0), at(19, 59)]],
    ['* 22-23,0-4 * * *', [at(22, 0), at(4, 59)], [at(21, 59), at(5, 0)]],
    ['* 22-23 * * mon-fri', [at(22, 10)], [at(22, 10, 7), at(22, 10, 8), at(21, 0)]],
    ['', [at(0, 0), at(12, 0)], []],
  ])('%s', (text, inside, outside) => {
    const window = parseWindow(text)
    expect(inside.map(window)).toEqual(inside.map(() => true))
    expect(outside.map(window)).toEqual(outside.map(() => false))
  })

  it.each(['22-05', '25:00-05:00', '22:00-05:60', '22:00-22:00', 'at night', '* * *', '* 22-23 * * * * *'])(
    'is refused: %s',
    async (text) => {
      expect(await codeOf(async () => parseWindow(text))).toBe('USAGE')
    },
  )
})
