import { parseBitRate } from './bit-rate.ts'
import { MAX_UPLINK_RULES, MIN_UPLINK_BITS } from './constants.ts'
import { type DayWindow, isInWindow, type LocalTime, parseDayWindow } from './day-window.ts'
import { isMeshError, MeshError } from './errors.ts'

/** What the uplink may carry in some hours of some days. */
export interface UplinkRule {
  readonly bytesPerSecond: number
  /** Undefined: at all times. */
  readonly window?: DayWindow
}

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
    return {
      bytesPerSecond: parseRate(rate, text),
      ...(window === undefined ? {} : { window: windowOf(window, text) }),
    }
  })
}

/** Bytes per second that the uplink may carry at a local time; 0: closed. */
export function uplinkRate(rules: readonly UplinkRule[], local: LocalTime): number {
  return rules.find(({ window }) => window === undefined || isInWindow(window, local))?.bytesPerSecond ?? 0
}

function parseRate(rate: string, text: string): number {
  const bits = parseBitRate(rate) ?? 0
  if (bits < MIN_UPLINK_BITS)
    throw wrong(text, `${rate || 'nothing'} is no rate such as 5 Mbit/s (at least ${MIN_UPLINK_BITS / 1000} kbit/s)`)
  return bits / 8
}

function windowOf(window: string, text: string): DayWindow {
  try {
    return parseDayWindow(window)
  } catch (error) {
    throw isMeshError(error, 'USAGE') ? wrong(text, error.message) : error
  }
}

function wrong(text: string, why: string): MeshError {
  return new MeshError('USAGE', `the rule of the uplink "${text}" is not understood: ${why}`)
}
