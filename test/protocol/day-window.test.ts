import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { calendarOf, isInWindow, localTimeOf, nextInWindows, parseDayWindow } from '../../protocol/day-window.ts'

const MINUTE_MS = 60_000

/** Minutes between two moments that are in a window by the local clock. */
function minutesIn(text: string, from: string, until: string): number {
  const window = parseDayWindow(text)
  let count = 0
  for (let ms = Date.parse(from); ms < Date.parse(until); ms += MINUTE_MS)
    if (isInWindow(window, localTimeOf(new Date(ms)))) count++
  return count
}

const opens = (text: string, time: string): string =>
  nextInWindows([parseDayWindow(text)], new Date(time)).toISOString()

describe('a window in the nights in which the clocks of Berlin are changed', () => {
  const zone = process.env.TZ
  beforeEach(() => {
    process.env.TZ = 'Europe/Berlin'
  })
  afterEach(() => {
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
  })

  it('goes by the local clock: the night is shorter by an hour in March, and longer in October', () => {
    expect(minutesIn('22:00-05:00', '2026-03-27T11:00Z', '2026-03-28T11:00Z')).toBe(7 * 60)
    expect(minutesIn('22:00-05:00', '2026-03-28T11:00Z', '2026-03-29T11:00Z')).toBe(6 * 60)
    expect(minutesIn('Sa 22:00-05:00', '2026-03-28T11:00Z', '2026-03-29T11:00Z')).toBe(6 * 60)
    expect(minutesIn('22:00-05:00', '2026-10-24T11:00Z', '2026-10-25T11:00Z')).toBe(8 * 60)
  })

  it('begins at the same local time before and after', () => {
    // 22:00 is 21:00 UTC in winter, and 20:00 UTC in summer.
    expect(opens('22:00-05:00', '2026-03-28T12:00Z')).toBe('2026-03-28T21:00:00.000Z')
    expect(opens('22:00-05:00', '2026-03-29T12:00Z')).toBe('2026-03-29T20:00:00.000Z')
    expect(opens('22:00-05:00', '2026-10-25T12:00Z')).toBe('2026-10-25T21:00:00.000Z')
  })

  it('begins after the hour that is left out, or on the next night if nothing of it is left', () => {
    expect(opens('02:30-04:00', '2026-03-29T00:00Z')).toBe('2026-03-29T01:00:00.000Z')
    expect(opens('02:00-03:00', '2026-03-29T00:00Z')).toBe('2026-03-30T00:00:00.000Z')
    expect(opens('Su 02:00-03:00', '2026-03-29T00:00Z')).toBe('2026-04-05T00:00:00.000Z')
  })
})

it('is a calendar of systemd, day by day', () => {
  expect(calendarOf(parseDayWindow('Fr-Mo 7:05-8:00'))).toBe('Mon,Fri,Sat,Sun *-*-* 07:05:00')
  expect(calendarOf(parseDayWindow('00:00-24:00'))).toBe('*-*-* 00:00:00')
})
