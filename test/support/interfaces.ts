import type { NetworkInterfaceInfo } from 'node:os'

/** Network cards as Node lists them, from their addresses with the bits of the subnet: `{ eth0: ['10.0.0.1/8'] }`. */
export function interfaces(cards: Readonly<Record<string, readonly string[]>>): NodeJS.Dict<NetworkInterfaceInfo[]> {
  return Object.fromEntries(Object.entries(cards).map(([card, addresses]) => [card, addresses.map(infoOf)]))
}

function infoOf(cidr: string): NetworkInterfaceInfo {
  const [address = ''] = cidr.split('/')
  const internal = address.startsWith('127.') || address === '::1'
  const common = { address, netmask: '', mac: '02:00:00:00:00:01', internal, cidr }
  return address.includes(':') ? { ...common, family: 'IPv6', scopeid: 0 } : { ...common, family: 'IPv4' }
}
