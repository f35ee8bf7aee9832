import type { Portion } from './block-checker.ts'
import type { ArrivedBlock } from './compressed-link.ts'
import type { PeerSession } from './session.ts'

/** The fetch that has asked for an item, and is told what becomes of the request. */
export interface TicketOwner {
  /** The peer sent content. */
  receive(ticket: Ticket, content: ArrivedBlock): void
  /** The peer does not have the item. */
  missing(ticket: Ticket): void
  /** The peer will not answer: the item is to be asked of somebody again. */
  unask(ticket: Ticket): void
}

/** One request for one item, on its way to or from one peer. */
export interface Ticket extends Portion {
  readonly owner: TicketOwner
  readonly index: number
  readonly session: PeerSession<Ticket>
  /** Whether the answer crosses the uplink. */
  readonly far: boolean
  /** Bytes that the request takes of the owner's window. */
  readonly weight: number
  /** The request's number in the session; undefined until it is sent. */
  id: number | undefined
}
