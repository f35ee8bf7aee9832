import { isInSubnet, isLoopback, type OwnAddress } from './own-addresses.ts'
import { parseTcpAddress } from './tcp-address.ts'

/**
 * In which order the addresses of a peer are tried: the one that worked last, those in a subnet of this machine, all others,
 * loopback ones, which lead to this machine itself unless both run on one computer. Among those of a kind IPv6
 * and IPv4 take turns, IPv6 first (RFC 8305, section 4).
 */
export function dialSequence(
  addresses: readonly string[],
  own: readonly OwnAddress[],
  worked: string | undefined,
): string[] {
  const ranks = Map.groupBy(new Set(addresses), (address) => (address === worked ? 0 : rankOf(address, own)))
  return [...ranks.keys()].sort((a, b) => a - b).flatMap((rank) => inTurn(ranks.get(rank)!))
}

function rankOf(text: string, own: readonly OwnAddress[]): number {
  const address = parseTcpAddress(text)
  if (address === undefined) return 2
  const { family, host } = address
  if (isLoopback(host)) return 3
  return own.some((one) => isInSubnet(one, family, host)) ? 1 : 2
}

function inTurn(addresses: readonly string[]): string[] {
  const six = addresses.filter((address) => address.startsWith('/ip6'))
  const others = addresses.filter((address) => !address.startsWith('/ip6'))
  const longest = Math.max(six.length, others.length)
  return Array.from({ length: longest }, (_, i) => [six[i], others[i]])
    .flat()
    .filter((address) => address !== undefined)
}
