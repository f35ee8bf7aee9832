const UNITS = { k: 1e3, m: 1e6, g: 1e9 } as const
const RATE = /^(\d+(?:\.\d+)?)\s*([kmg])bit(?:\/s)?$/i

/** Reads `20mbit`, `1.5 Gbit` or `5 Mbit/s`; bits per second, undefined if it is no rate. All rates are read here. */
export function parseBitRate(text: string): number | undefined {
  const [, number, unit] = RATE.exec(text.trim()) ?? []
  if (unit === undefined) return undefined
  return Math.round(Number(number) * UNITS[unit.toLowerCase() as keyof typeof UNITS])
}
