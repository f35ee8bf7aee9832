import { isLoopback, type OwnAddress } from './own-addresses.ts'
import { parseTcpAddress, type TcpAddress } from './tcp-address.ts'

/** Addresses of one card and family that are announced: a card with IPv6 may get a new one each day, and keeps the old ones. */
const MOST_PER_CARD = 4

/**
 * Where other machines may reach this one: what it listens on, with each wildcard replaced by the addresses of this machine that
 * it stands for. Cards come first, then the bridges of containers, then 169.254.0.0/16. Left out are link-local IPv6 addresses,
 * which mean nothing without the card of whoever dials, and which libp2p accepts no connection from, and what a wildcard stands for on the loopback card, unless it is all.
 * `listen`: as it was asked for; `bound`: as libp2p tells it, from which the port is taken where 0 was asked for.
 */
export function announced(listen: readonly string[], bound: readonly string[], own: readonly OwnAddress[]): string[] {
  const found = listen.flatMap((text) => {
    const asked = parseTcpAddress(text)
    if (asked === undefined) return [text]
    if (!isWildcard(asked)) return [`/${asked.family}/${asked.host}/tcp/${boundPort(asked, bound)}`]
    const port = boundPort(asked, bound)
    return port === 0 ? [] : places(asked.family, own).map((address) => `/${asked.family}/${address}/tcp/${port}`)
  })
  return [...new Set(sorted(found, own))]
}

function isWildcard({ host }: TcpAddress): boolean {
  return host === '0.0.0.0' || host === '::'
}

/** The port that was asked for, or that the kernel has given; 0 if that cannot be known now. */
function boundPort({ family, host, port }: TcpAddress, bound: readonly string[]): number {
  if (port !== 0) return port
  const all = bound.flatMap((text) => parseTcpAddress(text) ?? [])
  const its = all.find((one) => one.family === family && (one.host === host || host === '0.0.0.0' || host === '::'))
  return its?.port ?? 0
}

/** What a wildcard stands for. */
function places(family: 'ip4' | 'ip6', own: readonly OwnAddress[]): string[] {
  const counts = new Map<string, number>()
  return own.flatMap((one) => {
    if (one.family !== family || (family === 'ip6' && one.isLinkLocal)) return []
    const count = (counts.get(one.card) ?? 0) + 1
    counts.set(one.card, count)
    return count > MOST_PER_CARD ? [] : [one.address]
  })
}

/** The best first. Loopback addresses that a wildcard stands for count only if there are no others. */
function sorted(addresses: readonly string[], own: readonly OwnAddress[]): string[] {
  const ranked = addresses.map((text) => ({ text, rank: rankOf(text, own) }))
  const outside = ranked.filter(({ rank }) => rank < LOOPBACK)
  return (outside.length > 0 ? outside : ranked).sort((a, b) => a.rank - b.rank).map(({ text }) => text)
}

const LOOPBACK = 3

function rankOf(text: string, own: readonly OwnAddress[]): number {
  const host = parseTcpAddress(text)?.host
  const mine = own.find(({ address }) => address === host)
  if (mine?.isLoopback === true) return LOOPBACK
  if (mine?.isLinkLocal === true) return 2
  return mine?.isVirtual === true ? 1 : 0
}

/** Those addresses of a peer that a third machine can use: loopback ones only if there are no others. */
export function tellable(addresses: readonly string[]): string[] {
  const outside = addresses.filter((text) => !isLoopback(parseTcpAddress(text)?.host ?? ''))
  return outside.length > 0 ? outside : [...addresses]
}
