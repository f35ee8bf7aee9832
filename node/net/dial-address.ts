import type { Connection } from '@libp2p/interface'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'

/** What of libp2p's transport manager is used here. */
interface Transports {
  readonly transportManager: {
    dial(address: Multiaddr, options: DialOptions): Promise<Connection>
  }
}

interface DialOptions {
  readonly signal: AbortSignal
  readonly onProgress: (event: { readonly type: string }) => void
}

/** Connects to one address of a peer, or of whoever answers there if none is named; `answered` is called when TCP is connected. Errors: those of libp2p. */
export type DialAddress = (
  peerId: string | undefined,
  address: string,
  signal: AbortSignal,
  answered: () => void,
) => Promise<Connection>

/**
 * A libp2p service that connects to one address of a peer. `libp2p.dial` tries the addresses of a peer one after the other, and
 * never two at a time.
 */
export function dialAddress({ transportManager }: Transports): DialAddress {
  return (peerId, address, signal, answered) =>
    transportManager.dial(
      multiaddr(peerId === undefined ? address : `${address.replace(/\/p2p\/[^/]+$/, '')}/p2p/${peerId}`),
      {
        signal,
        onProgress: ({ type }) => {
          if (type.startsWith('upgrader:')) answered()
        },
      },
    )
}
