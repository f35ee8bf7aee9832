import { NETWORK_TICK_MS } from './limits.ts'
import { type ListAddresses, type OwnAddress, ownAddresses } from './own-addresses.ts'

/** Looks at the addresses of this machine every NETWORK_TICK_MS, and tells when they are others than before. */
export class NetworkWatch {
  readonly #list: ListAddresses
  readonly #listeners = new Set<() => void>()
  readonly #timer: NodeJS.Timeout
  #addresses: readonly OwnAddress[]
  #seen: string

  /** `list`: the addresses of this machine (@default those that the kernel tells). */
  constructor(list: ListAddresses = ownAddresses) {
    this.#list = list
    this.#addresses = list()
    this.#seen = keyOf(this.#addresses)
    this.#timer = setInterval(() => this.look(), NETWORK_TICK_MS).unref()
  }

  /** As they were at the last look. */
  get addresses(): readonly OwnAddress[] {
    return this.#addresses
  }

  /** Calls back after each change, until the watch is closed. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  /** Looks now. */
  look(): void {
    const addresses = this.#list()
    const key = keyOf(addresses)
    if (key === this.#seen) return
    this.#addresses = addresses
    this.#seen = key
    for (const listener of this.#listeners) listener()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#listeners.clear()
  }
}

function keyOf(addresses: readonly OwnAddress[]): string {
  return addresses
    .map(({ card, address, prefix }) => `${card} ${address}/${prefix}`)
    .sort()
    .join()
}
