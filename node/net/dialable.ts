import { BlockList } from 'node:net'
import { isInSubnet, isLoopback, type OwnAddress } from './own-addresses.ts'
import { parseTcpAddress } from './tcp-address.ts'

/** Where no single machine is reached: unspecified, multicast, broadcast and reserved ranges (RFC 6890, RFC 4291). */
const NOBODY = new BlockList()
NOBODY.addSubnet('0.0.0.0', 8, 'ipv4')
NOBODY.addSubnet('224.0.0.0', 3, 'ipv4')
NOBODY.addAddress('::', 'ipv6')
NOBODY.addSubnet('ff00::', 8, 'ipv6')
/** What means something on one cable only. */
const LINK_LOCAL = new BlockList()
LINK_LOCAL.addSubnet('169.254.0.0', 16, 'ipv4')
LINK_LOCAL.addSubnet('fe80::', 10, 'ipv6')

/**
 * Which of the addresses that another machine tells of may be dialled. Loopback addresses lead to this machine itself, so they may only
 * if this machine tells of nothing else either, as where several machines of a lab are one computer. Link-local ones may if a card of this machine
 * has one of the same family. Private and public ranges may. `told`: what this machine tells of itself.
 */
export function dialable(addresses: readonly string[], own: readonly OwnAddress[], told: readonly string[]): string[] {
  const hostOf = (text: string): string => parseTcpAddress(text)?.host ?? ''
  const loopback = told.every((text) => isLoopback(hostOf(text)))
  return addresses.filter((text) => {
    const at = parseTcpAddress(text)
    // A name, which the peer has of its own configuration.
    if (at === undefined) return true
    const type = at.family === 'ip4' ? 'ipv4' : 'ipv6'
    if (isLoopback(at.host)) return loopback
    if (NOBODY.check(at.host, type)) return false
    return !LINK_LOCAL.check(at.host, type) || own.some((one) => one.isLinkLocal && one.family === at.family)
  })
}

/** Those of some addresses that are in a subnet of this machine; all of them if its subnets are not known. */
export function onLink(addresses: readonly string[], own: readonly OwnAddress[]): string[] {
  if (own.length === 0) return [...addresses]
  return addresses.filter((text) => {
    const at = parseTcpAddress(text)
    return at !== undefined && own.some((one) => isInSubnet(one, at.family, at.host))
  })
}
