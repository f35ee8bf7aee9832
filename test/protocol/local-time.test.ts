import { afterEach, expect, it } from 'vitest'
import { formatTime } from '../../protocol/local-time.ts'

const zone = process.env.TZ
afterEach(() => {
  if (zone === undefined) delete process.env.TZ
  else process.env.TZ = zone
})

it.each([
  ['UTC', '2026-11-30T21:00:05.900Z', '2026-11-30 21:00:05 UTC'],
  ['Europe/Berlin', '2026-11-30T23:30:00Z', '2026-12-01 00:30:00 UTC+01:00'],
  ['Europe/Berlin', '2026-03-29T01:00:00Z', '2026-03-29 03:00:00 UTC+02:00'],
  ['Europe/Berlin', '2026-10-25T00:30:00Z', '2026-10-25 02:30:00 UTC+02:00'],
  ['Europe/Berlin', '2026-10-25T01:30:00Z', '2026-10-25 02:30:00 UTC+01:00'],
  ['America/St_Johns', '1970-01-01T12:00:00Z', '1970-01-01 08:30:00 UTC-03:30'],
])('in %s %s is %s', (name, time, text) => {
  process.env.TZ = name
  expect(formatTime(time)).toBe(text)
  expect(formatTime(Date.parse(time))).toBe(text)
})
