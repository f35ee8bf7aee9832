import { MAX_ADDRESSES_PER_PEER } from '../../../protocol/constants.ts'
import type { PeerAddresses } from '../../../protocol/messages.ts'
import { RETRY_MAX_MS, RETRY_MIN_MS } from '../../exchange/limits.ts'
import { dialOrder } from '../../net/dial-rule.ts'
import { DIAL_TICK_MS, MAX_PARALLEL_DIALS } from './limits.ts'

/** Where addresses are remembered between runs: by peer id. */
interface AddressShelf {
  put(key: string, value: readonly string[]): Promise<void>
  iterator(): AsyncIterable<[string, readonly string[]]>
}

interface Target {
  addresses: readonly string[]
  /** Whether it could not be reached, or only later, since it became known. */
  failed: boolean
  /** When it may be tried again, and how long to wait after the next failure. */
  nextAt: number
  pauseMs: number
}

/** Keeps this machine connected to every member whose address is known, however it became known. */
export class Dialer {
  readonly #targets = new Map<string, Target>()
  readonly #shelf: AddressShelf
  readonly #connect: (peerId: string, addresses: readonly string[]) => Promise<void>
  readonly #isWanted: (peerId: string) => boolean
  readonly #rank: (peerId: string) => number
  readonly #room: (rank: number) => number
  readonly #random: () => number
  readonly #now: () => number
  #timer: NodeJS.Timeout | undefined
  /** Who is being dialled, with the rank. */
  readonly #dialing = new Map<string, number>()

  constructor(options: {
    shelf: AddressShelf
    connect: (peerId: string, addresses: readonly string[]) => Promise<void>
    /** A member that is not connected and not banned. */
    isWanted: (peerId: string) => boolean
    /** Members of a lower rank are dialled before the others. */
    rank: (peerId: string) => number
    /** How many more connections to members of a rank are worth having now, those of it that are being dialled included. */
    room: (rank: number) => number
    random?: () => number
    now?: () => number
  }) {
    this.#shelf = options.shelf
    this.#connect = options.connect
    this.#isWanted = options.isWanted
    this.#rank = options.rank
    this.#room = options.room
    this.#random = options.random ?? Math.random
    this.#now = options.now ?? (() => performance.now())
  }

  /** Begins with the addresses of earlier runs. */
  async start(): Promise<void> {
    for await (const [peerId, addresses] of this.#shelf.iterator()) this.#set(peerId, addresses)
    this.#timer = setInterval(() => this.#tick(), DIAL_TICK_MS)
    this.#tick()
  }

  /** Addresses of a peer became known; the newest are tried first. Returns whether they, or their order, are new. */
  learn(peerId: string, addresses: readonly string[]): boolean {
    if (addresses.length === 0) return false
    const known = this.#targets.get(peerId)?.addresses ?? []
    const merged = [...new Set([...addresses, ...known])].slice(0, MAX_ADDRESSES_PER_PEER)
    if (merged.length === known.length && merged.every((address, i) => address === known[i])) return false
    this.#set(peerId, merged)
    // Losing an address costs only time, so nobody waits for this.
    this.#shelf.put(peerId, merged).catch(() => undefined)
    this.#tick()
    return true
  }

  /** There may be room for more connections. */
  look(): void {
    this.#tick()
  }

  /** Tries everybody again at once: the member list changed. */
  retry(): void {
    for (const target of this.#targets.values()) {
      target.nextAt = 0
      target.pauseMs = RETRY_MIN_MS
    }
    this.#tick()
  }

  /** Whether nothing more is to be expected of a peer that is not connected: no address of it is known, or none answered. */
  hasGivenUp(peerId: string): boolean {
    return this.#targets.get(peerId)?.failed !== false
  }

  addresses(): PeerAddresses[] {
    return [...this.#targets].map(([id, { addresses }]) => ({ id, addresses }))
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #set(peerId: string, addresses: readonly string[]): void {
    this.#targets.set(peerId, {
      addresses,
      failed: false,
      nextAt: 0,
      pauseMs: RETRY_MIN_MS,
    })
  }

  #tick(): void {
    if (this.#timer === undefined) return
    const now = this.#now()
    const due = [...this.#targets].filter(
      ([peerId, target]) => !this.#dialing.has(peerId) && target.nextAt <= now && this.#isWanted(peerId),
    )
    const hasRoom = (rank: number): boolean =>
      this.#dials() < MAX_PARALLEL_DIALS && this.#dials(rank) < this.#room(rank)
    for (const [peerId, target] of dialOrder(due, ([id]) => this.#rank(id), hasRoom, this.#random))
      void this.#dial(peerId, target)
  }

  /** How many are being dialled, of one rank or of all: dials of one rank, which may take long, are not counted for another. */
  #dials(rank?: number): number {
    let count = 0
    for (const its of this.#dialing.values()) if (rank === undefined || its === rank) count++
    return count
  }

  async #dial(peerId: string, target: Target): Promise<void> {
    this.#dialing.set(peerId, this.#rank(peerId))
    try {
      await this.#connect(peerId, target.addresses)
      target.pauseMs = RETRY_MIN_MS
    } catch {
      target.failed = true
      // Off, or it does not know us as a member yet: tried again later, ever less often.
      target.pauseMs = Math.min(target.pauseMs * 2, RETRY_MAX_MS)
    } finally {
      target.nextAt = this.#now() + target.pauseMs
      this.#dialing.delete(peerId)
    }
  }
}
