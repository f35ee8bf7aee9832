interface Event {
  readonly at: number
  /** Of two events at the same time the one that was planned first comes first. */
  readonly order: number
  readonly run: () => void
}

/** The events of a simulation, in order of time (milliseconds): a binary heap. */
export class EventQueue {
  readonly #heap: Event[] = []
  #now = 0
  #planned = 0

  get now(): number {
    return this.#now
  }

  after(delayMs: number, run: () => void): void {
    const event = { at: this.#now + delayMs, order: this.#planned++, run }
    let at = this.#heap.length
    for (; at > 0; at = (at - 1) >>> 1) {
      const above = this.#heap[(at - 1) >>> 1]!
      if (isBefore(above, event)) break
      this.#heap[at] = above
    }
    this.#heap[at] = event
  }

  /** Runs the next event; false if there is none. */
  step(): boolean {
    const first = this.#heap[0]
    if (first === undefined) return false
    const last = this.#heap.pop()!
    if (this.#heap.length > 0) this.#sink(last)
    this.#now = first.at
    first.run()
    return true
  }

  #sink(event: Event): void {
    const { length } = this.#heap
    let at = 0
    for (let below = 1; below < length; below = 2 * at + 1) {
      if (below + 1 < length && isBefore(this.#heap[below + 1]!, this.#heap[below]!)) below++
      if (isBefore(event, this.#heap[below]!)) break
      this.#heap[at] = this.#heap[below]!
      at = below
    }
    this.#heap[at] = event
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}
