import type { MachineFacts } from '../../../protocol/enrol-messages.ts'
import { keyCode } from '../../../protocol/key-code.ts'
import { MAX_WAITING, MAX_WAITING_BYTES, MAX_WAITING_PER_ADDRESS, WAITING_FORGOTTEN_MS } from './limits.ts'

/** A stranger that asks to be enrolled. Nothing of its facts is proven but that it has the key of its peer id. */
export interface Waiting {
  /** Peer id. */
  readonly id: string
  /** Short code of its key. */
  readonly code: string
  readonly facts: MachineFacts
  /** Where it asked from: an IP address. */
  readonly address: string
  /** Since when, and when it asked last; Unix ms. */
  readonly since: number
  readonly asked: number
}

interface Entry extends Waiting {
  /** When it asked last, by a clock that nobody sets. */
  readonly heardAt: number
  readonly bytes: number
}

/**
 * The strangers that ask to be enrolled. They are kept in memory only: each asks again every few seconds, and a stranger must not be
 * able to fill the disk. How many there are is bounded, in all and from one address, and so are their bytes.
 */
export class WaitingRoom {
  readonly #entries = new Map<string, Entry>()
  readonly #now: () => number
  readonly #ticks: () => number

  constructor({ now = Date.now, ticks = () => performance.now() }: { now?: () => number; ticks?: () => number } = {}) {
    this.#now = now
    this.#ticks = ticks
  }

  /** Notes that a stranger asks. Returns false if there is no room for it now. */
  heard(id: string, facts: MachineFacts, address: string): boolean {
    this.#forgetSilent()
    const before = this.#entries.get(id)
    const others = [...this.#entries.values()].filter((entry) => entry.id !== id)
    const bytes = Buffer.byteLength(JSON.stringify(facts))
    const used = others.reduce((sum, entry) => sum + entry.bytes, 0)
    const hasRoom =
      others.length < MAX_WAITING &&
      used + bytes <= MAX_WAITING_BYTES &&
      others.filter((entry) => entry.address === address).length < MAX_WAITING_PER_ADDRESS
    if (!hasRoom) return false
    const asked = this.#now()
    const since = before?.since ?? asked
    this.#entries.set(id, { id, code: keyCode(id), facts, address, since, asked, heardAt: this.#ticks(), bytes })
    return true
  }

  /** Who waits, the longest first. */
  all(): readonly Waiting[] {
    this.#forgetSilent()
    return [...this.#entries.values()]
  }

  /** It waits no longer. */
  forget(id: string): void {
    this.#entries.delete(id)
  }

  /** Who does not ask any more was switched off. */
  #forgetSilent(): void {
    const until = this.#ticks() - WAITING_FORGOTTEN_MS
    for (const [id, { heardAt }] of this.#entries) if (heardAt < until) this.#entries.delete(id)
  }
}
