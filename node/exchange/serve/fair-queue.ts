import { SERVE_QUANTUM_BYTES } from './limits.ts'

/** Something that waits. */
interface Costly {
  /** Bytes that it takes of the client's turn. */
  readonly cost: number
}

/** What one client waits for. */
interface Line<Item> {
  readonly client: string
  items: Item[]
  /** Bytes it may have now. */
  credit: number
}

/**
 * What clients wait for, taken in turn by bytes: deficit round robin (Shreedhar and Varghese, SIGCOMM 1995). While two clients
 * both wait, what they have got differs by one quantum and two of the largest items at most.
 */
export class FairQueue<Item extends Costly> {
  /** Clients that wait, the next one first. */
  readonly #lines: Line<Item>[] = []
  /** Whether the first has got its quantum for this turn. */
  #granted = false

  get isEmpty(): boolean {
    return this.#lines.length === 0
  }

  /** Clients that wait for something. */
  get clients(): readonly string[] {
    return this.#lines.map(({ client }) => client)
  }

  push(client: string, item: Item): void {
    const line = this.#lines.find((it) => it.client === client)
    if (line === undefined) this.#lines.push({ client, items: [item], credit: 0 })
    else line.items.push(item)
  }

  /** The next item of those clients that can take one now. */
  take(isReady: (client: string) => boolean): { client: string; item: Item } | undefined {
    if (!this.#lines.some(({ client }) => isReady(client))) return undefined
    for (;;) {
      const line = this.#lines[0]!
      const item = line.items[0]!
      if (isReady(line.client)) {
        // A client that could not take all of its last quantum does not save up the rest.
        if (!this.#granted) line.credit = Math.min(line.credit, item.cost) + SERVE_QUANTUM_BYTES
        this.#granted = true
        if (item.cost <= line.credit) {
          line.credit -= item.cost
          line.items.shift()
          if (line.items.length === 0) this.#forget(0)
          return { client: line.client, item }
        }
      }
      this.#lines.push(this.#lines.shift()!)
      this.#granted = false
    }
  }

  /** Takes out the items of one client that `isGone` is true of. */
  remove(client: string, isGone: (item: Item) => boolean): void {
    const at = this.#lines.findIndex((it) => it.client === client)
    if (at === -1) return
    const line = this.#lines[at]!
    line.items = line.items.filter((item) => !isGone(item))
    if (line.items.length === 0) this.#forget(at)
  }

  /** A client that waits for nothing saves nothing up. */
  #forget(at: number): void {
    this.#lines.splice(at, 1)
    if (at === 0) this.#granted = false
  }
}
