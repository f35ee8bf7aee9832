import type { Ticket } from './ticket.ts'

/** The open requests of one fetch, by item; an item has more than one only at the very end. */
export class Tickets {
  readonly #byItem = new Map<number, Ticket[]>()
  #weight = 0

  /** Bytes that all open requests together take of the window. */
  get weight(): number {
    return this.#weight
  }

  /** Items that are asked for. */
  items(): number[] {
    return [...this.#byItem.keys()]
  }

  /** Requests that are open for one item. */
  of(index: number): readonly Ticket[] {
    return this.#byItem.get(index) ?? []
  }

  has(ticket: Ticket): boolean {
    return this.of(ticket.index).includes(ticket)
  }

  add(ticket: Ticket): void {
    this.#byItem.set(ticket.index, [...this.of(ticket.index), ticket])
    this.#weight += ticket.weight
  }

  /** False if the request was not open. */
  remove(ticket: Ticket): boolean {
    if (!this.has(ticket)) return false
    const others = this.of(ticket.index).filter((other) => other !== ticket)
    if (others.length === 0) this.#byItem.delete(ticket.index)
    else this.#byItem.set(ticket.index, others)
    this.#weight -= ticket.weight
    return true
  }

  /** Closes all requests for one item, and tells peers that have not answered. Returns what was open. */
  cancel(index: number): readonly Ticket[] {
    const tickets = this.of(index)
    this.#byItem.delete(index)
    for (const ticket of tickets) {
      this.#weight -= ticket.weight
      if (ticket.id !== undefined) ticket.session.cancel(ticket.id)
    }
    return tickets
  }
}
