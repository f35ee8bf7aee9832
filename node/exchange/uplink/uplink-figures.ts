/** Why something crossed the uplink. */
type UplinkCause = 'blocks' | 'pages' | 'metadata'
/** Bytes that crossed, by cause. */
type UplinkBytes = Readonly<Record<UplinkCause, number>>

/** What has crossed between this machine and those of one other site, in bytes of content as it travelled. */
export interface SiteTraffic {
  readonly site: string
  readonly in: UplinkBytes
  readonly out: UplinkBytes
  /** By name of the machine there. */
  readonly peers: readonly { readonly name: string; readonly in: number; readonly out: number }[]
}

type Direction = 'in' | 'out'
interface PeerCount {
  readonly name: string
  readonly site: string
  readonly in: Record<UplinkCause, number>
  readonly out: Record<UplinkCause, number>
}

/** Counts what this machine lets cross the uplink, since it was started. */
export class UplinkFigures {
  readonly #whois: (peerId: string) => { readonly name: string; readonly site: string } | undefined
  readonly #peers = new Map<string, PeerCount>()

  /** `whois` knows far peers only: what passes between others does not count. */
  constructor(whois: (peerId: string) => { readonly name: string; readonly site: string } | undefined) {
    this.#whois = whois
  }

  count(peerId: string, direction: Direction, cause: UplinkCause, bytes: number): void {
    let peer = this.#peers.get(peerId)
    if (peer === undefined) {
      const who = this.#whois(peerId)
      if (who === undefined) return
      peer = { name: who.name, site: who.site, in: none(), out: none() }
      this.#peers.set(peerId, peer)
    }
    peer[direction][cause] += bytes
  }

  bySite(): SiteTraffic[] {
    const sites = Map.groupBy(this.#peers.values(), ({ site }) => site)
    return [...sites].map(([site, peers]) => ({
      site,
      in: sum(peers.map((peer) => peer.in)),
      out: sum(peers.map((peer) => peer.out)),
      peers: peers.map((peer) => ({ name: peer.name, in: total(peer.in), out: total(peer.out) })),
    }))
  }
}

function none(): Record<UplinkCause, number> {
  return { blocks: 0, pages: 0, metadata: 0 }
}

function sum(all: readonly UplinkBytes[]): UplinkBytes {
  const of = (cause: UplinkCause): number => all.reduce((bytes, one) => bytes + one[cause], 0)
  return { blocks: of('blocks'), pages: of('pages'), metadata: of('metadata') }
}

function total({ blocks, pages, metadata }: UplinkBytes): number {
  return blocks + pages + metadata
}
