import { readdir } from 'node:fs/promises'
import { BlockList } from 'node:net'
import { type OwnAddress, ownAddresses } from '../../../node/net/own-addresses.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { MAX_RANGE } from './limits.ts'

/** Where machines are served: a network card, and its address there. */
export interface LabNetwork {
  readonly card: string
  readonly address: string
  /** Bits of the subnet. */
  readonly prefix: number
}

/** Addresses that are lent out, first and last. */
export interface AddressRange {
  readonly first: string
  readonly last: string
}

/** A card as people see it: `eth0 (10.20.0.2/24)`. */
const described = ({ card, address, prefix }: LabNetwork): string => `${card} (${address}/${prefix})`

const listed = (networks: readonly LabNetwork[]): string => networks.map(described).toSorted().join(', ')

/**
 * The network that machines are served in: that of a card, or of an address of this machine, else the only one there is. Errors: USAGE if
 * that card is not there, or there are several; BOOT_NETWORK if there is no address.
 */
export async function labNetwork(
  given?: string,
  addresses: readonly OwnAddress[] = ownAddresses(),
  cards?: readonly string[],
): Promise<LabNetwork> {
  const usable = addresses.filter(
    ({ family, isLoopback, isLinkLocal }) => family === 'ip4' && !isLoopback && !isLinkLocal,
  )
  if (given !== undefined) {
    const found = usable.find(({ card, address }) => card === given || address === given)
    if (found !== undefined) return found
    const known = cards ?? (await readdir('/sys/class/net').catch(() => []))
    if (known.includes(given)) throw new MeshError('BOOT_NETWORK', whyUnusable(given, addresses))
    const has = usable.length === 0 ? 'no address in a network' : listed(usable)
    throw new MeshError('USAGE', `this machine has no network card or address ${given}; it has ${has}`)
  }
  const real = usable.filter(({ isVirtual }) => !isVirtual)
  const [first] = real
  if (first === undefined)
    throw new MeshError(
      'BOOT_NETWORK',
      'this machine has no IPv4 address in a network, so no machine can start from it',
    )
  if (new Set(real.map(({ card }) => card)).size > 1)
    throw new MeshError(
      'USAGE',
      `this machine is in several networks: ${listed(real)}; say by --interface in which one the lab’s machines are`,
    )
  return first
}

function whyUnusable(card: string, addresses: readonly OwnAddress[]): string {
  const has = addresses.filter((one) => one.card === card)
  if (has.some(({ isLoopback }) => isLoopback)) return `${card} is the loopback interface: no other machine is there`
  if (has.length === 0) return `network card ${card} has no address: its cable is out, or nothing has given it one`
  return `network card ${card} has no IPv4 address in the lab’s network, only ${has.map(({ address }) => address).join(', ')}`
}

/** `10.20.0.0` of 10.20.0.2/24, and its mask `255.255.255.0`. */
export function subnetOf({ address, prefix }: LabNetwork): { readonly base: string; readonly mask: string } {
  const mask = prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0
  return { base: textOf((numberOf(address) & mask) >>> 0), mask: textOf(mask) }
}

/** Errors: USAGE, if not all addresses of a range are of the network, and of nobody else. */
export function assertRange({ first, last }: AddressRange, network: LabNetwork): void {
  const [from, to, own] = [numberOf(first), numberOf(last), numberOf(network.address)]
  const subnet = new BlockList()
  subnet.addSubnet(network.address, network.prefix)
  const { base, mask } = subnetOf(network)
  const broadcast = (numberOf(base) | (~numberOf(mask) >>> 0)) >>> 0
  const wrong =
    !subnet.check(first) || !subnet.check(last)
      ? `is not in the network of ${described(network)}`
      : from > to
        ? 'ends before it begins'
        : to - from >= MAX_RANGE
          ? `has more than ${MAX_RANGE} addresses`
          : from <= own && own <= to
            ? `holds ${network.address}, which is this machine’s own`
            : from === numberOf(base) || to === broadcast
              ? 'holds the address of the network itself, or its broadcast address'
              : undefined
  if (wrong !== undefined) throw new MeshError('USAGE', `the range ${first}-${last} of --dhcp ${wrong}`)
}

function numberOf(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}

function textOf(number: number): string {
  return [24, 16, 8, 0].map((bits) => (number >>> bits) & 255).join('.')
}
