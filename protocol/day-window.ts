import { MeshError } from './errors.ts'

/** Some hours of some days, such as `Mo-Fr 22:00-05:00`, by the local clock. */
export interface DayWindow {
  /** Days on which the window begins, 0 for Sunday; undefined: every day. */
  readonly days?: ReadonlySet<number>
  /**
   * Minutes since midnight: the first that is in the window, and the first that is not. If the second is not later than
   * the first, it is one of the next day: `[1200, 360]` is 20:00 to 06:00.
   */
  readonly minutes: readonly [from: number, until: number]
}

/** A time of day as a local clock shows it: `day` 0 for Sunday, `minute` since midnight. */
export interface LocalTime {
  readonly day: number
  readonly minute: number
}

const DAYS = ['Su', 'Mo', 'Tu', 'We', 'Th', 'Fr', 'Sa'] as const
const MINUTES_OF_DAY = 24 * 60
const MINUTE_MS = 60_000
/** A window begins at least once in 7 days. A change of the clock may leave out one beginning. */
const SEARCHED_DAYS = 15
const WINDOW = /^(?:([a-z]{2})(?:\s*-\s*([a-z]{2}))?\s+)?(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})$/i

/**
 * Reads `22:00-05:00` or `Mo-Fr 22:00-05:00`. The end is not in the window, and may be 24:00. Windows of options, of the
 * configuration file, of rolls and of the rule of the uplink are all read here. Errors: USAGE, with the reason.
 */
export function parseDayWindow(text: string): DayWindow {
  const match = WINDOW.exec(text.trim())
  if (match === null) throw wrong(`"${text}" is no window such as 22:00-05:00 or Mo-Fr 22:00-05:00`)
  const [, first, last, ...times] = match
  const [fromHour, fromMinute, untilHour, untilMinute] = times.map(Number) as [number, number, number, number]
  const [from, until] = [fromHour * 60 + fromMinute, untilHour * 60 + untilMinute]
  if (from >= MINUTES_OF_DAY || until > MINUTES_OF_DAY || fromMinute > 59 || untilMinute > 59)
    throw wrong(`"${text}" has a time that no day has; times go from 00:00 to 24:00`)
  if (from === until) throw wrong(`"${text}" is empty: it ends when it begins; 00:00-24:00 is the whole day`)
  return { minutes: [from, until], ...(first === undefined ? {} : { days: daysOf(first, last ?? first) }) }
}

/** Whether a local time is in a window. A night counts to the day on which it begins. */
export function isInWindow({ days, minutes: [from, until] }: DayWindow, { day, minute }: LocalTime): boolean {
  const begins = (on: number): boolean => days?.has(on) !== false
  if (from < until) return minute >= from && minute < until && begins(day)
  return (minute >= from && begins(day)) || (minute < until && begins((day + 6) % 7))
}

/** What the local clock of this machine shows at a moment. */
export function localTimeOf(time: Date): LocalTime {
  return { day: time.getDay(), minute: time.getHours() * 60 + time.getMinutes() }
}

/**
 * The first whole minute, not before `time`, that is in one of the windows. Goes minute by minute by the local clock, so that
 * nights in which the clock is changed are right.
 */
export function nextInWindows(windows: readonly DayWindow[], time: Date): Date {
  const first = Math.ceil(time.getTime() / MINUTE_MS) * MINUTE_MS
  for (let ms = first; ms < first + SEARCHED_DAYS * MINUTES_OF_DAY * MINUTE_MS; ms += MINUTE_MS) {
    const local = localTimeOf(new Date(ms))
    if (windows.some((window) => isInWindow(window, local))) return new Date(ms)
  }
  throw new Error('a window that never opens')
}

/** The beginnings of a window as systemd.time(7) writes them: `Mon,Tue *-*-* 22:00:00`. */
export function calendarOf({ days, minutes: [from] }: DayWindow): string {
  const names = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
  const mondayFirst = [1, 2, 3, 4, 5, 6, 0].filter((day) => days?.has(day) === true)
  const two = (value: number): string => String(value).padStart(2, '0')
  const on = days === undefined ? '' : `${mondayFirst.map((day) => names[day]).join(',')} `
  return `${on}*-*-* ${two(Math.floor(from / 60))}:${two(from % 60)}:00`
}

function daysOf(first: string, last: string): ReadonlySet<number> {
  const [from, until] = [first, last].map((name) =>
    DAYS.findIndex((day) => day.toLowerCase() === name.toLowerCase()),
  ) as [number, number]
  if (from === -1 || until === -1)
    throw wrong(`${from === -1 ? first : last} is no day: days are Mo, Tu, We, Th, Fr, Sa, Su`)
  const count = ((until - from + 7) % 7) + 1
  return new Set(Array.from({ length: count }, (_, i) => (from + i) % 7))
}

function wrong(why: string): MeshError {
  return new MeshError('USAGE', why)
}
