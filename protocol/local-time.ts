/**
 * A time as people read it: by the local clock, to the second, with the distance from UTC: `2026-11-30 22:00:05 UTC+01:00`.
 * `time`: Unix milliseconds, or what `Date` reads.
 */
export function formatTime(time: Date | number | string): string {
  const at = new Date(time)
  // The locale of Sweden writes 2026-11-30 22:00:05.
  return `${at.toLocaleString('sv')} ${zoneOf(at)}`
}

function zoneOf(at: Date): string {
  const minutes = -at.getTimezoneOffset()
  if (minutes === 0) return 'UTC'
  const two = (value: number): string => String(value).padStart(2, '0')
  const [hour, minute] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60]
  return `UTC${minutes < 0 ? '-' : '+'}${two(hour)}:${two(minute)}`
}
