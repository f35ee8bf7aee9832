import { MAX_STRANGER_CONNECTIONS, MAX_STRANGERS, MAX_STRANGERS_PER_ADDRESS, STRANGER_MS } from './limits.ts'

/**
 * Connections of peers that are no members: to ask whether they may become one. There are few of them at a time, few of one address,
 * and each ends after a while.
 */
export class Strangers {
  readonly #connected = new Map<string, { readonly address: string; readonly timer: NodeJS.Timeout }>()
  readonly #isStranger: (peerId: string) => boolean
  readonly #disconnect: (peerId: string) => void

  constructor(options: {
    readonly isStranger: (peerId: string) => boolean
    readonly disconnect: (peerId: string) => void
  }) {
    this.#isStranger = options.isStranger
    this.#disconnect = options.disconnect
  }

  /** Whether another one may connect. */
  get hasRoom(): boolean {
    return this.#connected.size < MAX_STRANGERS
  }

  /** A peer has connected from an address. */
  connected(peerId: string, address: string): void {
    if (!this.#isStranger(peerId) || this.#connected.has(peerId)) return
    const same = [...this.#connected.values()].filter((one) => one.address === address)
    if (same.length >= MAX_STRANGERS_PER_ADDRESS) {
      this.#disconnect(peerId)
      return
    }
    const timer = setTimeout(() => {
      this.gone(peerId)
      // It may have become a member.
      if (this.#isStranger(peerId)) this.#disconnect(peerId)
    }, STRANGER_MS).unref()
    this.#connected.set(peerId, { address, timer })
  }

  /** A peer has so many connections now. */
  connection(peerId: string, connections: number): void {
    if (connections > MAX_STRANGER_CONNECTIONS && this.#isStranger(peerId)) this.#disconnect(peerId)
  }

  /** A peer is connected no longer. */
  gone(peerId: string): void {
    clearTimeout(this.#connected.get(peerId)?.timer)
    this.#connected.delete(peerId)
  }

  /** Ends all timers. */
  stop(): void {
    for (const peerId of [...this.#connected.keys()]) this.gone(peerId)
  }
}
