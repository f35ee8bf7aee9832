import { describe, expect, it } from 'vitest'
import { parseUplinkRule, uplinkRate } from '../../protocol/uplink-rule.ts'
import { codeOf } from '../support/error-code.ts'

const SUNDAY = 0
const FRIDAY = 5
const SATURDAY = 6

function rate(text: string, day: number, time: string): number {
  const [hour, minute] = time.split(':').map(Number) as [number, number]
  return (uplinkRate(parseUplinkRule(text), { day, minute: hour * 60 + minute }) * 8) / 1e6
}

describe('the rule of the uplink', () => {
  it('takes the first part that fits, across midnight too', () => {
    const rule = '5 Mbit/s, 20:00-06:00; 1 Mbit/s'
    for (const [time, expected] of [
      ['19:59', 1],
      ['20:00', 5],
      ['23:59', 5],
      ['00:00', 5],
      ['05:59', 5],
      ['06:00', 1],
    ] as const)
      expect(rate(rule, FRIDAY, time), time).toBe(expected)
  })

  it('is closed where nothing fits', () => {
    expect(rate('512kbit, 08:00-09:30', SUNDAY, '08:00')).toBe(0.512)
    expect(rate('512kbit, 08:00-09:30', SUNDAY, '09:30')).toBe(0)
    expect(rate('1 Gbit/s', SUNDAY, '12:00')).toBe(1000)
  })

  it('counts a night to the day on which it begins', () => {
    const rule = '5 Mbit/s, Mo-Fr 20:00-06:00; 9 Mbit/s, Sa 00:00-24:00'
    expect(rate(rule, FRIDAY, '21:00')).toBe(5)
    expect(rate(rule, SATURDAY, '05:00')).toBe(5)
    expect(rate(rule, SATURDAY, '06:00')).toBe(9)
    expect(rate(rule, SUNDAY, '05:00')).toBe(0)
    expect(rate('5 Mbit/s, Sa-Mo 08:00-09:00', SUNDAY, '08:30')).toBe(5)
  })

  it.each([
    '',
    '5',
    '5 Mbit/s,',
    '5 Mbit/s, 25:00-06:00',
    '5 Mbit/s, 20:61-06:00',
    '5 Mbit/s, 20:00-20:00',
    '5 Mbit/s, Xy 20:00-06:00',
    '5 Mbit/s, 20:00-06:00, 1:00-2:00',
    '1 kbit/s',
    '5 Mbit/s;',
    Array(40).fill('5 Mbit/s').join(';'),
  ])('refuses %j with the reason', async (text) => {
    expect(await codeOf(() => parseUplinkRule(text))).toBe('USAGE')
  })
})
