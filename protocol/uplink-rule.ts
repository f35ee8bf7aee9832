import { MAX_UPLINK_RULES, MIN_UPLINK_BITS } from './constants.ts'
import { MeshError } from './errors.ts'

/** What the uplink may carry in some hours of some days. */
export interface UplinkRule {
  readonly bytesPerSecond: number
  /** Days on which the window begins, 0 for Sunday; undefined: every day. */
  readonly days?: ReadonlySet<number>
  /**
   * Minutes since midnight: the first that is in the window, and the first that is not. If the second is not later than
   * the first, it is one of the next day: `[1200, 360]` is 20:00 to 06:00.
   */
  readonly window?: readonly [from: number, until: number]
}

const DAYS = ['su', 'mo', 'tu', 'we', 'th', 'fr', 'sa']
const UNITS = { k: 1e3, m: 1e6, g: 1e9 } as const
const RATE = /^(\d+(?:\.\d+)?)\s*([kmg])bit(?:\/s)?$/i
const WINDOW = /^(?:([a-z]{2})(?:-([a-z]{2}))?\s+)?(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})$/i

/**
 * Reads `5 Mbit/s, 20:00-06:00; 2 Mbit/s, Sa-Su 06:00-20:00; 1 Mbit/s`: rates, each with the window that it is for. The
 * first part whose window contains a moment holds then. The uplink is closed when no part fits. Errors: USAGE.
 */
export function parseUplinkRule(text: string): readonly UplinkRule[] {
  const parts = text.split(';')
  if (parts.length > MAX_UPLINK_RULES) throw wrong(text, `it has more than ${MAX_UPLINK_RULES} parts`)
  return parts.map((part) => {
    const [rate = '', window, ...more] = part.split(',').map((it) => it.trim())
    if (more.length > 0) throw wrong(text, `${part.trim()} has two windows; write a part for each`)
    return { bytesPerSecond: parseRate(rate, text), ...(window === undefined ? {} : parseWindow(window, text)) }
  })
}

/** Bytes per second that the uplink may carry at a local time; 0: closed. */
export function uplinkRate(
  rules: readonly UplinkRule[],
  local: { readonly day: number; readonly minute: number },
): number {
  return rules.find((rule) => fits(rule, local))?.bytesPerSecond ?? 0
}

function fits({ days, window }: UplinkRule, { day, minute }: { day: number; minute: number }): boolean {
  if (window === undefined) return true
  const [from, until] = window
  const begins = (on: number): boolean => days?.has(on) !== false
  if (from < until) return minute >= from && minute < until && begins(day)
  return (minute >= from && begins(day)) || (minute < until && begins((day + 6) % 7))
}

function parseRate(rate: string, text: string): number {
  const [, number, unit = ''] = RATE.exec(rate) ?? []
  const bits = Number(number) * UNITS[unit.toLowerCase() as keyof typeof UNITS]
  if (!(bits >= MIN_UPLINK_BITS))
    throw wrong(text, `${rate || 'nothing'} is no rate such as 5 Mbit/s (at least ${MIN_UPLINK_BITS / 1000} kbit/s)`)
  return bits / 8
}

function parseWindow(window: string, text: string): Pick<UplinkRule, 'days' | 'window'> {
  const match = WINDOW.exec(window)
  if (match === null) throw wrong(text, `${window} is no window such as 20:00-06:00 or Mo-Fr 20:00-06:00`)
  const [, first, last, ...times] = match
  const [fromHour, fromMinute, untilHour, untilMinute] = times.map(Number) as [number, number, number, number]
  const [from, until] = [fromHour * 60 + fromMinute, untilHour * 60 + untilMinute]
  if (from >= 1440 || until > 1440 || fromMinute > 59 || untilMinute > 59)
    throw wrong(text, `${window} is no time of day`)
  if (from === until) throw wrong(text, `${window} is empty; leave the window out to mean the whole day`)
  return { window: [from, until], ...(first === undefined ? {} : { days: daysOf(first, last ?? first, text) }) }
}

function daysOf(first: string, last: string, text: string): ReadonlySet<number> {
  const [from, until] = [first, last].map((day) => DAYS.indexOf(day.toLowerCase())) as [number, number]
  if (from === -1 || until === -1) throw wrong(text, 'days are Mo, Tu, We, Th, Fr, Sa, Su')
  const count = ((until - from + 7) % 7) + 1
  return new Set(Array.from({ length: count }, (_, i) => (from + i) % 7))
}

function wrong(text: string, why: string): MeshError {
  return new MeshError('USAGE', `the rule of the uplink "${text}" is not understood: ${why}`)
}
