import type { PeerAddresses } from '../../../protocol/message-parts.ts'
import { MAX_PEERS_MESSAGE_BYTES, PEERS_AGAIN_MS } from './limits.ts'

/** A list of addresses has a tag and a length for each text, and one more for the peer and for what it has signed. */
const FIELD_BYTES = 8

/** What is to be told now, and when something is to be told that has to wait. */
interface PeerNews {
  readonly peers: readonly PeerAddresses[]
  readonly laterMs: number | undefined
}

/** What one client was told of where members are, so that it hears of each once, and again only of new addresses. */
export class ToldPeers {
  readonly #client: string
  readonly #told = new Map<
    string,
    { readonly addresses: readonly string[]; readonly at: number; readonly signed: boolean }
  >()

  constructor(client: string) {
    this.#client = client
  }

  /**
   * What of `known` is new to the client; it counts as told from now on. A member that has not signed anything before is told of at once when it has. Whose addresses change all the time is told of every
   * PEERS_AGAIN_MS: else one member that makes addresses up would make every other one send them on.
   */
  news(known: readonly PeerAddresses[], now: number): PeerNews {
    const peers: PeerAddresses[] = []
    let laterMs: number | undefined
    for (const peer of known) {
      if (peer.id === this.#client) continue
      const told = this.#told.get(peer.id)
      if (told !== undefined) {
        const isSignedNow = !told.signed && peer.record !== undefined
        if (!isSignedNow && peer.addresses.every((address) => told.addresses.includes(address))) continue
        const waitMs = told.at + PEERS_AGAIN_MS - now
        if (waitMs > 0 && !isSignedNow) {
          laterMs = Math.min(laterMs ?? waitMs, waitMs)
          continue
        }
      }
      this.#told.set(peer.id, { addresses: peer.addresses, at: now, signed: peer.record !== undefined })
      peers.push(peer)
    }
    return { peers, laterMs }
  }
}

/** Parts of a list of peers that fit one message each. */
export function* splitPeers(peers: readonly PeerAddresses[]): Generator<PeerAddresses[]> {
  let part: PeerAddresses[] = []
  let bytes = 0
  for (const peer of peers) {
    const texts = [peer.id, ...peer.addresses, ...(peer.record === undefined ? [] : Object.values(peer.record))]
    const more = texts.reduce((sum, text) => sum + FIELD_BYTES + Buffer.byteLength(text), 0)
    if (part.length > 0 && bytes + more > MAX_PEERS_MESSAGE_BYTES) {
      yield part
      part = []
      bytes = 0
    }
    part.push(peer)
    bytes += more
  }
  if (part.length > 0) yield part
}
