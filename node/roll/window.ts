import { Cron } from 'croner'
import { MeshError } from '../../protocol/errors.ts'

const MINUTES_OF_DAY = 24 * 60

/** Whether machines may go down at a time by the local clock. */
export type RollWindow = (time: Date) => boolean

/**
 * Reads `22:00-05:00` (the end is not in it; it may pass midnight), or the minutes that are in the window in cron
 * syntax of five fields: `* 22-23,0-4 * * mon-fri`. Empty: always. Errors: USAGE.
 */
export function parseWindow(text: string): RollWindow {
  if (text === '') return () => true
  const match = /^(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})$/.exec(text)
  if (match === null) return parseCron(text)
  const [fromHour, fromMinute, toHour, toMinute] = match.slice(1).map(Number) as [number, number, number, number]
  const [from, to] = [fromHour * 60 + fromMinute, toHour * 60 + toMinute]
  if (fromMinute > 59 || toMinute > 59 || from >= MINUTES_OF_DAY || to > MINUTES_OF_DAY || from === to)
    throw new MeshError('USAGE', `${text} is no window: give two different times such as 22:00-05:00`)
  return (time) => {
    const minute = time.getHours() * 60 + time.getMinutes()
    return from < to ? minute >= from && minute < to : minute >= from || minute < to
  }
}

function parseCron(text: string): RollWindow {
  try {
    const cron = new Cron(text, { mode: '5-part', paused: true })
    // The library compares seconds, too, so they are set to 0.
    return (time) => cron.match(new Date(new Date(time).setSeconds(0, 0)))
  } catch (cause) {
    throw new MeshError(
      'USAGE',
      `${text} is no window: give times such as 22:00-05:00, or the minutes in cron syntax such as "* 22-23,0-4 * * *"`,
      { cause },
    )
  }
}
