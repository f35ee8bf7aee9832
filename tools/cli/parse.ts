import { resolve } from 'node:path'
import { InvalidArgumentError } from 'commander'
import type { MonitorNbdOptions } from '../../node/agent/log/monitor-nbd.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { parseUplinkRule } from '../../protocol/uplink-rule.ts'
import { MIN_UPLOAD_BITS } from './limits.ts'

const DURATION_UNITS_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
/** Longest time that is accepted. A longer one is a typing error, and would leave the range of dates. */
const MAX_DURATION_MS = 366 * DURATION_UNITS_MS.d
/** First descriptor that systemd hands over (SD_LISTEN_FDS_START). */
const FIRST_LISTEN_FD = 3
const RATE_UNITS = { kbit: 1e3, mbit: 1e6, gbit: 1e9 } as const
const MOST_RATE = 1e12
const MOST_PEERS = 10_000
const MOST_NICE = 19
const SIZE_UNITS = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 } as const

/** Reads `90s`, `15m`, `1h` or `2d`; milliseconds, at most 366 days. */
export function parseDuration(text: string): number {
  const match = /^(\d+)([smhd])$/.exec(text)
  const value = match === null ? 0 : Number(match[1]) * DURATION_UNITS_MS[match[2] as keyof typeof DURATION_UNITS_MS]
  if (value === 0) throw new InvalidArgumentError('Give a time such as 90s, 15m, 1h or 2d.')
  if (value > MAX_DURATION_MS) throw new InvalidArgumentError('Give a time of at most 366d.')
  return value
}

/** Reads `2026-11-01` (its beginning, in UTC) or `3d` (ago); Unix milliseconds. */
export function parseSince(text: string): number {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(text)) return Date.now() - parseDuration(text)
  const time = Date.parse(text)
  if (Number.isNaN(time)) throw new InvalidArgumentError('Give a day such as 2026-11-01, or a time such as 3d.')
  return time
}

/** Reads `65536`, `64K`, `64KiB` or `1G`; bytes. */
export function parseSize(text: string): number {
  const match = /^(\d+)\s*([kmgt]?)(i?b)?$/i.exec(text)
  const value =
    match === null ? Number.NaN : Number(match[1]) * SIZE_UNITS[match[2]!.toLowerCase() as keyof typeof SIZE_UNITS]
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Give a size such as 65536, 64K or 1G.')
  return value
}

/** Reads `20mbit`, `1.5Gbit` or `none`; bits per second, 0 for none. */
export function parseRate(text: string, smallest = 100_000): number {
  if (text === 'none') return 0
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([kmg]bit)$/i.exec(text) ?? []
  const rate = Math.round(Number(number) * RATE_UNITS[unit.toLowerCase() as keyof typeof RATE_UNITS])
  if (!(rate >= smallest && rate <= MOST_RATE))
    throw new InvalidArgumentError(
      `Give a rate such as 20Mbit, 100Mbit or 1Gbit (at least ${smallest / 1000}kbit), or none.`,
    )
  return rate
}

/** Reads a rate; bytes per second, 0 for none. */
export function parseMaxUpload(text: string): number {
  return parseRate(text, MIN_UPLOAD_BITS) / 8
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
  try {
    if (text !== 'none') parseUplinkRule(text)
    return text
  } catch (error) {
    if (!isMeshError(error, 'USAGE')) throw error
    throw new InvalidArgumentError(error.message)
  }
}

/** Accepts what looks like a multiaddr. libp2p checks it later, when it is loaded. */
export function parseAddress(text: string): string {
  if (!/^\/[a-z0-9]+\/\S+$/.test(text)) throw new InvalidArgumentError('Give multiaddrs such as /ip4/0.0.0.0/tcp/7433.')
  return text
}

/** A whole number from 1 to 10000. */
export function parseCount(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > 10_000)
    throw new InvalidArgumentError('Give a whole number from 1 to 10000.')
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
  if (host === undefined || Number(port) > 65535)
    throw new InvalidArgumentError('Give unix:PATH, tcp:HOST:PORT or systemd.')
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** Reads a name that device mapper and a path can both hold. */
export function parseEraName(text: string): string {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$/.test(text))
    throw new InvalidArgumentError('Give a name of letters, digits, and any of _ . + - after the first.')
  return text
}
