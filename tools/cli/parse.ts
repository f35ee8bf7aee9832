import { isIPv4 } from 'node:net'
import { resolve } from 'node:path'
import { InvalidArgumentError } from 'commander'
import type { MonitorNbdOptions } from '../../node/agent/log/monitor-nbd.ts'
import { parseRollWindows } from '../../node/roll/window.ts'
import { parseBitRate } from '../../protocol/bit-rate.ts'
import { MAX_WARNING_SECONDS } from '../../protocol/constants.ts'
import { type Digest, digestFromHex } from '../../protocol/digest.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { parseKeyCode } from '../../protocol/key-code.ts'
import { isImageName } from '../../protocol/manifest.ts'
import { isMachineName, isPlaceName } from '../../protocol/names.ts'
import { parseUplinkRule } from '../../protocol/uplink-rule.ts'
import { type CsvStyle, localCsv } from './csv.ts'
import { MIN_RATE_BITS, MIN_UPLOAD_BITS } from './limits.ts'
import { LANGUAGES, type Language } from './screen/catalogue.ts'

const DURATION_UNITS_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
/** Longest time that is accepted. A longer one is a typing error, and would leave the range of dates. */
const MAX_DURATION_MS = 366 * DURATION_UNITS_MS.d
/** First descriptor that systemd hands over (SD_LISTEN_FDS_START). */
const FIRST_LISTEN_FD = 3
const MOST_RATE = 1e12
const MOST_PEERS = 10_000
const MOST_NICE = 19
const MOST_HOLDERS = 100
const MOST_PORT = 65535
const SIZE_UNITS = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 } as const

/** Reads `90s`, `15m`, `1h` or `2d`; milliseconds, at most 366 days. */
export function parseDuration(text: string): number {
  const match = /^(\d+)([smhd])$/.exec(text)
  const value = match === null ? 0 : Number(match[1]) * DURATION_UNITS_MS[match[2] as keyof typeof DURATION_UNITS_MS]
  if (value === 0) throw new InvalidArgumentError('Give a time such as 90s, 15m, 1h or 2d.')
  if (value > MAX_DURATION_MS) throw new InvalidArgumentError('Give a time of at most 366d.')
  return value
}

/** Reads how long users are warned; milliseconds, at most MAX_WARNING_SECONDS. */
export function parseWarning(text: string): number {
  const ms = parseDuration(text)
  if (ms > MAX_WARNING_SECONDS * 1000)
    throw new InvalidArgumentError(`Give a time of at most ${MAX_WARNING_SECONDS / 60}m.`)
  return ms
}

/** Reads `2026-11-01` or `1.11.2026` (its beginning, by the local clock) or `3d` (ago); Unix milliseconds. */
export function parseSince(text: string): number {
  const parts =
    /^(\d{4})-(\d{2})-(\d{2})$/.exec(text)?.slice(1) ?? /^(\d{1,2})\.(\d{1,2})\.(\d{4})$/.exec(text)?.slice(1).reverse()
  if (parts === undefined) {
    if (/^\d+[smhd]$/.test(text)) return Date.now() - parseDuration(text)
    // 11/12/2026 is one day in France, and another one in the United States.
    throw new InvalidArgumentError('Give a day such as 2026-11-01 or 1.11.2026, or a time such as 3d.')
  }
  const [year, month, day] = parts.map(Number) as [number, number, number]
  const time = new Date(year, month - 1, day)
  // `Date` takes 30 February for 2 March.
  if (time.getFullYear() !== year || time.getMonth() !== month - 1 || time.getDate() !== day)
    throw new InvalidArgumentError(`There is no day ${text}. Give a day such as 2026-11-01, or a time such as 3d.`)
  return time.getTime()
}

/** Reads the language of a spreadsheet, such as `de-DE`. */
export function parseCsvStyle(text: string): CsvStyle {
  try {
    return localCsv(text)
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause
    throw new InvalidArgumentError('Give a language such as de-DE, fr-FR or en-GB.')
  }
}

/** Reads `65536`, `64K`, `64KiB` or `1G`; bytes. */
export function parseSize(text: string): number {
  const match = /^(\d+)\s*([kmgt]?)(i?b)?$/i.exec(text)
  const value =
    match === null ? Number.NaN : Number(match[1]) * SIZE_UNITS[match[2]!.toLowerCase() as keyof typeof SIZE_UNITS]
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Give a size such as 65536, 64K or 1G.')
  return value
}

/** Reads `20mbit`, `1.5 Gbit/s` or `none`; bits per second, 0 for none. */
export function parseRate(text: string, smallest = MIN_RATE_BITS): number {
  if (text === 'none') return 0
  const rate = parseBitRate(text) ?? 0
  if (rate < smallest || rate > MOST_RATE)
    throw new InvalidArgumentError(
      `Give a rate such as 20Mbit, 100Mbit or 1Gbit (at least ${smallest / 1000}kbit), or none.`,
    )
  return rate
}

/** Reads the most that is sent to others; bytes per second, 0 for none. */
export function parseMaxUpload(text: string): number {
  return parseRate(text, MIN_UPLOAD_BITS) / 8
}

/** Reads how fast a coming release is fetched; bytes per second, 0 for none. */
export function parseStageRate(text: string): number {
  return parseRate(text) / 8
}

/** Reads a part of one core: `50%` is 0.5, and 0 stands for none. */
export function parseMaxCpu(text: string): number {
  if (text === 'none') return 0
  const [, percent] = /^(\d{1,3})%$/.exec(text) ?? []
  if (!(Number(percent) >= 1 && Number(percent) <= 100))
    throw new InvalidArgumentError('Give a share of one core from 1% to 100%, such as 50%, or none.')
  return Number(percent) / 100
}

/** Reads a number of machines; 0 for none. */
export function parseMaxPeers(text: string): number {
  if (text === 'none') return 0
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > MOST_PEERS)
    throw new InvalidArgumentError(`Give a whole number from 1 to ${MOST_PEERS}, or none.`)
  return value
}

/** Reads a priority as nice(1) counts, from 0 to 19. */
export function parseNice(text: string): number {
  if (!/^\d{1,2}$/.test(text) || Number(text) > MOST_NICE)
    throw new InvalidArgumentError(`Give a whole number from 0 (as usual) to ${MOST_NICE} (everything else first).`)
  return Number(text)
}

/** Reads `OFFSET:LENGTH`, each a size, and adds it to the ranges given before. */
export function parseRange(
  text: string,
  before: readonly { offset: number; length: number }[] = [],
): { offset: number; length: number }[] {
  const parts = text.split(':')
  if (parts.length !== 2) throw new InvalidArgumentError('Give OFFSET:LENGTH in bytes, such as 1M:64K.')
  return [...before, { offset: parseSize(parts[0]!), length: parseSize(parts[1]!) }]
}

/** Checks a rule of the uplink and returns it as it was given; or `none`. */
export function parseUplink(text: string): string {
  if (text !== 'none') asArgument(() => parseUplinkRule(text))
  return text
}

/** Checks the windows of a roll, such as `Mo-Fr 22:00-05:00`, and returns them as they were given. */
export function parseWindow(text: string): string {
  asArgument(() => parseRollWindows(text))
  return text
}

function asArgument(parse: () => unknown): void {
  try {
    parse()
  } catch (error) {
    if (!isMeshError(error, 'USAGE')) throw error
    throw new InvalidArgumentError(error.message)
  }
}

/** A text that is not blank, such as a command. */
export function parseText(text: string): string {
  if (text.trim() === '') throw new InvalidArgumentError('Give a text that is not empty.')
  return text
}

/** Name of an image. */
export function parseImage(text: string): string {
  if (!isImageName(text))
    throw new InvalidArgumentError(
      'That is no image name. Give one of small letters, digits, dots, dashes, underscores and slashes, such as win11.',
    )
  return text
}

/** Name of a site or a group. */
export function parsePlace(text: string): string {
  if (!isPlaceName(text) || text.trim() === '')
    throw new InvalidArgumentError('Give a name of 1 to 128 characters, without control characters.')
  return text
}

/** Name of a machine. */
export function parseMachine(text: string): string {
  if (!isMachineName(text))
    throw new InvalidArgumentError(
      'That is no machine name. Give one of letters, digits, dots, dashes and underscores that begins with a letter or digit, at most 63 characters.',
    )
  return text
}

/** Id of a site: 64 hexadecimal digits. */
export function parseSiteId(text: string): Digest {
  const id = digestFromHex(text.trim().toLowerCase())
  if (id !== undefined) return id
  throw new InvalidArgumentError('Give the 64 hexadecimal digits that `mesh machines` on the master shows.')
}

/** The short code of a machine's key, however it is typed. */
export function parseCode(text: string): string {
  const code = parseKeyCode(text)
  if (code !== undefined) return code
  throw new InvalidArgumentError('Give the ten characters that the machine shows, such as K7QM3-XPAH2.')
}

/** Accepts what looks like a multiaddr. libp2p checks it later, when it is loaded. */
export function parseAddress(text: string): string {
  if (!/^\/[a-z0-9]+\/\S+$/.test(text)) throw new InvalidArgumentError('Give multiaddrs such as /ip4/0.0.0.0/tcp/7433.')
  return text
}

/** Holders that each block keeps: a whole number from 0 to 100. */
export function parseHolders(text: string): number {
  if (!/^\d{1,3}$/.test(text) || Number(text) > MOST_HOLDERS)
    throw new InvalidArgumentError(`Give a whole number from 0 to ${MOST_HOLDERS}.`)
  return Number(text)
}

/** A whole number from 1 to 10000. */
export function parseCount(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > 10_000)
    throw new InvalidArgumentError('Give a whole number from 1 to 10000.')
  return value
}

/** Reads what a machine does that cannot be restored when it starts. */
export function parsePolicy(text: string): 'hold' | 'retry' | 'start' {
  if (text !== 'hold' && text !== 'retry' && text !== 'start')
    throw new InvalidArgumentError('Give hold, retry or start.')
  return text
}

/** Reads which of two systems is meant. */
export function parseSystem(text: string): number {
  if (!/^[1-9]$/.test(text)) throw new InvalidArgumentError('Give 1 to 9.')
  return Number(text)
}

/** Reads a language of the screen. */
export function parseLanguage(text: string): Language {
  const found = LANGUAGES.find((language) => language === text)
  if (found === undefined) throw new InvalidArgumentError(`Give one of ${LANGUAGES.join(', ')}.`)
  return found
}

/** Reads a port of TCP. */
export function parsePort(text: string): number {
  const value = Number(text)
  if (!/^\d{1,5}$/.test(text) || value < 1 || value > MOST_PORT)
    throw new InvalidArgumentError(`Give a port from 1 to ${MOST_PORT}.`)
  return value
}

/** Reads a range of IPv4 addresses, such as 10.20.0.100-10.20.0.199. */
export function parseAddressRange(text: string): { first: string; last: string } {
  const [first = '', last = '', ...more] = text.split('-').map((one) => one.trim())
  if (!isIPv4(first) || !isIPv4(last) || more.length > 0)
    throw new InvalidArgumentError('Give the first and the last address, such as 10.20.0.100-10.20.0.199.')
  return { first, last }
}

/** Reads how hard zstd is to compress. */
export function parseLevel(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > 19)
    throw new InvalidArgumentError('Give a whole number from 1 to 19.')
  return value
}

/**
 * Reads `unix:PATH`, `tcp:HOST:PORT`, or `systemd` for the listening socket that systemd hands over (sd_listen_fds(3)).
 */
export function parseNbdAddress(text: string): MonitorNbdOptions['address'] {
  if (text === 'systemd') {
    const { LISTEN_PID, LISTEN_FDS } = process.env
    if (Number(LISTEN_PID) !== process.pid || Number(LISTEN_FDS) !== 1)
      throw new InvalidArgumentError(
        'systemd has handed over no socket; start it by a .socket unit with one ListenStream=.',
      )
    return { fd: FIRST_LISTEN_FD }
  }
  if (text.startsWith('unix:') && text.length > 'unix:'.length) return { unix: resolve(text.slice('unix:'.length)) }
  const [, host, port] = /^tcp:(\[[^\]]+\]|[^:]+):(\d{1,5})$/.exec(text) ?? []
  if (host === undefined || Number(port) > MOST_PORT)
    throw new InvalidArgumentError('Give unix:PATH, tcp:HOST:PORT or systemd.')
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** Checks the address that units give to `mesh monitor --nbd`, and returns it as it was given. */
export function parseUnitNbd(text: string): string {
  if (!/^(unix:\/|tcp:)/.test(text)) throw new InvalidArgumentError('Give unix:/PATH or tcp:HOST:PORT.')
  parseNbdAddress(text)
  return text
}

/** Reads a name that device mapper and a path can both hold. */
export function parseEraName(text: string): string {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$/.test(text))
    throw new InvalidArgumentError('Give a name of letters, digits, and any of _ . + - after the first.')
  return text
}
