import { BlockList } from 'node:net'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'

/** One address of this machine, on a network card that has a link. */
export interface OwnAddress {
  /** Name of the card, as `ip link` shows it: `eth0`. */
  readonly card: string
  /** Without a zone: `10.20.0.2`, `fd00::2`, `fe80::1`. */
  readonly address: string
  readonly family: 'ip4' | 'ip6'
  readonly isLoopback: boolean
  /** Means something on the cable of that card only: 169.254.0.0/16, fe80::/10. */
  readonly isLinkLocal: boolean
  /** Of a bridge that containers or virtual machines of this computer hang on: many machines have the same one. */
  readonly isVirtual: boolean
  /** Bits of the subnet. */
  readonly prefix: number
}

/** Lists the addresses of this machine. */
export type ListAddresses = () => OwnAddress[]

type Interfaces = NodeJS.Dict<readonly NetworkInterfaceInfo[]>

/** Names that container and virtual machine managers give to the bridges and cables that they make. */
const VIRTUAL = /^(docker|podman|cni|virbr|vnet|veth|lxcbr|lxdbr|incusbr|br-[0-9a-f]{12}$)/

/** The addresses of this machine at this moment. A card without a link has none. */
export function ownAddresses(list: () => Interfaces = networkInterfaces): OwnAddress[] {
  return Object.entries(interfacesOf(list)).flatMap(([card, infos = []]) => infos.map((info) => describe(card, info)))
}

/** A service manager may forbid this process to ask the kernel for addresses: then there are none. */
function interfacesOf(list: () => Interfaces): Interfaces {
  try {
    return list()
  } catch {
    return {}
  }
}

function describe(card: string, { address, family, internal, cidr }: NetworkInterfaceInfo): OwnAddress {
  const plain = address.split('%')[0]!.toLowerCase()
  return {
    card,
    address: plain,
    family: family === 'IPv6' ? 'ip6' : 'ip4',
    isLoopback: internal || isLoopback(plain),
    isLinkLocal: isLinkLocal(plain),
    isVirtual: VIRTUAL.test(card),
    prefix: Number(cidr?.split('/')[1] ?? (family === 'IPv6' ? 128 : 32)),
  }
}

/** Whether an address, without a zone, is the loopback one. */
export function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1'
}

/** Whether an address, without a zone, means something on one cable only. */
function isLinkLocal(address: string): boolean {
  return address.startsWith('169.254.') || /^fe[89ab][0-9a-f]:/i.test(address)
}

/** Whether a host is in the subnet of an own address. */
export function isInSubnet(own: OwnAddress, family: 'ip4' | 'ip6', host: string): boolean {
  if (own.family !== family) return false
  const type = family === 'ip4' ? 'ipv4' : 'ipv6'
  try {
    const subnet = new BlockList()
    subnet.addSubnet(own.address, own.prefix, type)
    return subnet.check(host, type)
  } catch {
    return false
  }
}
