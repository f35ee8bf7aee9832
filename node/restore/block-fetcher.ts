import type { FetchedBlock, FetchRequest } from '../exchange/ask/fetch-request.ts'
import type { Offender } from '../exchange/peer-ledger.ts'

/** How peers behaved. */
export interface PeerRecords {
  all(): readonly { readonly id: string; readonly bad: number }[]
  offenders(): readonly Offender[]
}

/** Gets content that is not on this machine; the swarm of node/exchange is one. */
export interface BlockFetcher {
  /** Yields every wanted item once, verified. */
  fetch(request: FetchRequest, signal: AbortSignal): AsyncGenerator<FetchedBlock>
  readonly ledger: PeerRecords
}
