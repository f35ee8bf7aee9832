import type { FetchedBlock, FetchRequest } from '../exchange/ask/fetch-request.ts'

/** Gets content that is not on this machine; the swarm of node/exchange is one. */
export interface BlockFetcher {
  /** Yields every wanted item once, verified. */
  fetch(request: FetchRequest, signal: AbortSignal): AsyncGenerator<FetchedBlock>
  readonly ledger: { all(): readonly { readonly id: string; readonly bad: number }[] }
}
