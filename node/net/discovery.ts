import { type Startable, start, stop } from '@libp2p/interface'
import { type MulticastDNSComponents, mdns } from '@libp2p/mdns'
import { MAX_ADDRESSES_PER_PEER } from '../../protocol/constants.ts'
import { DISCOVERY_INTERVAL_MS } from './limits.ts'

/** A node of the site was seen on the network. */
export type DiscoveryListener = (peerId: string, addresses: string[]) => void

/**
 * Multicast DNS (https://github.com/libp2p/specs/blob/master/discovery/mdns.md) as a libp2p service. Every answer that is
 * heard goes to `found`, also of a peer that is known already and has moved, and to nobody else: libp2p itself would
 * tell of a peer once only, and would keep the addresses, which anybody on the subnet can make up, among the proven ones.
 */
export function discovery(
  serviceTag: string,
  found: DiscoveryListener,
): (components: MulticastDNSComponents) => Startable {
  const create = mdns({ serviceTag, interval: DISCOVERY_INTERVAL_MS })
  return (components) => {
    const service = create(components)
    service.addEventListener('peer', ({ detail }) => {
      found(detail.id.toString(), detail.multiaddrs.slice(0, MAX_ADDRESSES_PER_PEER).map(String))
    })
    // Not the service itself, which libp2p would recognise and listen to. It begins late, so that the node has addresses
    // to tell when it answers its own first question, by which the others hear of it.
    return { start: () => undefined, afterStart: () => start(service), stop: () => stop(service) }
  }
}
