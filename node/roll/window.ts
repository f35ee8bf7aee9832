import { type DayWindow, isInWindow, localTimeOf, nextInWindows, parseDayWindow } from '../../protocol/day-window.ts'
import { MeshError } from '../../protocol/errors.ts'
import { MAX_ROLL_WINDOWS } from './limits.ts'

/**
 * When machines may go down, by the local clock: undefined if a time is in the window, else the minute in which it opens
 * next.
 */
export type RollWindow = (time: Date) => Date | undefined

/**
 * Reads one window or several, such as `Mo-Fr 22:00-05:00; Sa-Su 00:00-24:00`. Errors: USAGE.
 */
export function parseRollWindows(text: string): readonly DayWindow[] {
  const parts = text.split(';')
  if (parts.length > MAX_ROLL_WINDOWS)
    throw new MeshError('USAGE', `"${text}" has more than ${MAX_ROLL_WINDOWS} windows`)
  return parts.map(parseDayWindow)
}

/** The window of a roll, from the text of {@link parseRollWindows}. Empty: always. Errors: USAGE. */
export function rollWindow(text: string): RollWindow {
  if (text === '') return () => undefined
  const windows = parseRollWindows(text)
  return (time) => {
    const local = localTimeOf(time)
    return windows.some((window) => isInWindow(window, local)) ? undefined : nextInWindows(windows, time)
  }
}
