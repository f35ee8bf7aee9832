import { NBD_SHARED_BYTES, NBD_STALL_MS } from './limits.ts'

/** A client that waits for room, and what it does when there is room. */
export interface RoomWaiter {
  bytes: number
  /** Bytes of answers that the client has taken so far. */
  readonly taken: number
  readonly begin: () => void
}

/**
 * Bytes that all clients of a server have in memory together, beyond what each may always have, and the line of clients that wait
 * for room. A client has one place in the line at a time, for one request: so large requests take turns. When the line stands
 * still, who has taken answers before goes first, since of the others nobody knows whether they ever will; among these
 * who wants least.
 */
export class SharedRoom {
  #bytes = 0
  #line = new Set<RoomWaiter>()
  readonly #onStarved: () => void
  #timer: NodeJS.Timeout | undefined

  /** `onStarved`: called every NBD_STALL_MS while somebody waits. */
  constructor(onStarved: () => void) {
    this.#onStarved = onStarved
  }

  get isFull(): boolean {
    return this.#bytes >= NBD_SHARED_BYTES
  }

  /** Whether so many bytes more may be taken now. Whoever waits goes first. */
  hasFor(bytes: number): boolean {
    return this.#line.size === 0 && this.#bytes + bytes <= NBD_SHARED_BYTES
  }

  /** Takes bytes, or gives them back if `change` is negative. */
  change(change: number): void {
    this.#bytes += change
    if (change < 0) this.#serveLine()
  }

  /** Gets in line: behind others who have taken answers, before those who never have. */
  wait(waiter: RoomWaiter): void {
    const line = [...this.#line, waiter]
    this.#line = new Set(line.toSorted((a, b) => Number(b.taken > 0) - Number(a.taken > 0)))
    this.#timer ??= setInterval(() => this.#tick(), NBD_STALL_MS).unref()
  }

  /** Gives up a place in the line. */
  leave(waiter: RoomWaiter): void {
    if (this.#line.delete(waiter)) this.#serveLine()
  }

  #serveLine(): void {
    for (;;) {
      const [waiter] = this.#line
      if (waiter === undefined || this.#bytes + waiter.bytes > NBD_SHARED_BYTES) return
      this.#line.delete(waiter)
      waiter.begin()
    }
  }

  #tick(): void {
    if (this.#line.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
      return
    }
    this.#line = new Set([...this.#line].toSorted((a, b) => b.taken - a.taken || a.bytes - b.bytes))
    this.#onStarved()
  }
}
