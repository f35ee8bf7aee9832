import { MAX_ADDRESSES_PER_PEER } from '../../../protocol/constants.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { PeerAddresses } from '../../../protocol/message-parts.ts'
import { RETRY_MAX_MS, RETRY_MIN_MS } from '../../exchange/limits.ts'
import { dialOrder } from '../../net/dial-rule.ts'
import type { Dialled } from '../../net/host.ts'
import {
  DIAL_TICK_MS,
  MAX_HEARSAY,
  MAX_PARALLEL_DIALS,
  MEMBER_DIALS_BURST,
  MEMBER_DIALS_PER_MINUTE,
  WRONG_ADDRESS_MS,
} from './limits.ts'

/** Where addresses are remembered between runs: by peer id. */
interface AddressShelf {
  put(key: string, value: readonly string[]): Promise<void>
  iterator(): AsyncIterable<[string, readonly string[]]>
}

interface Target {
  /** Those that the peer itself told of or signed, or where it answered. */
  addresses: readonly string[]
  /** Those that multicast DNS told of, which anybody can forge. */
  hearsay: readonly string[]
  /** How often an address became known. */
  news: number
  /** Addresses that may be dialled now, and since when more have been granted. */
  allowance: { left: number; at: number }
  /** The one that it answered at last. */
  worked?: string | undefined
  /** Addresses where somebody else answered, and when. */
  readonly wrong: Map<string, number>
  /** Whether it could not be reached, or only later, since it became known. */
  failed: boolean
  /** When it may be tried again, and how long to wait after the next failure. */
  nextAt: number
  pauseMs: number
}

/** Connects to a peer at one of some addresses; `worked`: the one where it answered last. */
type Connect = (peerId: string, addresses: readonly string[], worked: string | undefined) => Promise<Dialled>

/** Keeps this machine connected to every member whose address is known, however it became known. */
export class Dialer {
  readonly #targets = new Map<string, Target>()
  readonly #shelf: AddressShelf
  readonly #connect: Connect
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
    connect: Connect
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
    for await (const [peerId, addresses] of this.#shelf.iterator()) {
      this.#targets.set(peerId, newTarget(addresses))
    }
    this.#timer = setInterval(() => this.#tick(), DIAL_TICK_MS)
    this.#tick()
  }

  /**
   * Multicast DNS told of addresses of a peer. They are dialled after those of the peer itself, and written down only once they have worked. Returns whether any is new.
   */
  hear(peerId: string, addresses: readonly string[]): boolean {
    const target = this.#targets.get(peerId) ?? newTarget([])
    const known = [...target.addresses, ...target.hearsay]
    const news = addresses.filter((address) => !known.includes(address) && !this.#isWrong(target, address))
    if (news.length === 0) return false
    target.hearsay = [...new Set([...news, ...target.hearsay])].slice(0, MAX_HEARSAY)
    this.#renew(target)
    this.#targets.set(peerId, target)
    this.#tick()
    return true
  }

  /** A peer told of its own addresses, itself or by what it has signed. Of too many the oldest are forgotten. Returns whether any is new. */
  learn(peerId: string, addresses: readonly string[]): boolean {
    const target = this.#targets.get(peerId)
    const known = target?.addresses ?? []
    const news = addresses.filter((address) => !known.includes(address) && !this.#isWrong(target, address))
    if (news.length === 0) return false
    this.#set(peerId, [...new Set([...addresses.filter((one) => !this.#isWrong(target, one)), ...known])])
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

  #set(peerId: string, all: readonly string[]): void {
    const addresses = all.slice(0, MAX_ADDRESSES_PER_PEER)
    const target = this.#targets.get(peerId) ?? newTarget(addresses)
    target.addresses = addresses
    target.hearsay = target.hearsay.filter((address) => !addresses.includes(address))
    this.#renew(target)
    this.#targets.set(peerId, target)
    this.#keep(peerId, addresses)
  }

  /** There is an address that was not tried yet. */
  #renew(target: Target): void {
    target.news++
    target.failed = false
    target.nextAt = 0
    target.pauseMs = RETRY_MIN_MS
  }

  /** How many addresses of a peer may be dialled now. */
  #mayDial({ allowance }: Target): number {
    const now = this.#now()
    const more = ((now - allowance.at) * MEMBER_DIALS_PER_MINUTE) / 60_000
    allowance.left = Math.min(MEMBER_DIALS_BURST, allowance.left + more)
    allowance.at = now
    return Math.floor(allowance.left)
  }

  /** Losing an address costs only time, so nobody waits for this. */
  #keep(peerId: string, addresses: readonly string[]): void {
    this.#shelf.put(peerId, addresses).catch(() => undefined)
  }

  /** Somebody else answered there a while ago: many machines have the same address on a bridge of their own. */
  #isWrong(target: Target | undefined, address: string): boolean {
    const at = target?.wrong.get(address)
    return at !== undefined && this.#now() < at + WRONG_ADDRESS_MS
  }

  #tick(): void {
    if (this.#timer === undefined) return
    const now = this.#now()
    const due = [...this.#targets].filter(
      ([peerId, target]) =>
        !this.#dialing.has(peerId) && target.nextAt <= now && this.#isWanted(peerId) && this.#mayDial(target) > 0,
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
    const { news } = target
    try {
      const addresses = [...target.addresses, ...target.hearsay].slice(0, this.#mayDial(target))
      target.allowance.left -= addresses.length
      const { address, wrong } = await this.#connect(peerId, addresses, target.worked)
      target.worked = address ?? target.worked
      target.pauseMs = RETRY_MIN_MS
      this.#tidy(peerId, target, wrong)
    } catch (error) {
      // Off, or it does not know us as a member yet: tried again later, ever less often.
      if (target.news === news) {
        target.failed = true
        target.pauseMs = Math.min(target.pauseMs * 2, RETRY_MAX_MS)
      }
      const wrong = isMeshError(error) ? error.detail?.wrong : undefined
      if (Array.isArray(wrong)) this.#tidy(peerId, target, wrong)
    } finally {
      if (target.news === news) target.nextAt = this.#now() + target.pauseMs
      this.#dialing.delete(peerId)
    }
  }

  /** The address that worked goes before the others; those of somebody else are dropped. */
  #tidy(peerId: string, target: Target, wrong: readonly string[]): void {
    for (const address of wrong) target.wrong.set(address, this.#now())
    // As many as a peer may have.
    for (const [address] of [...target.wrong].slice(0, -2 * MAX_ADDRESSES_PER_PEER)) target.wrong.delete(address)
    target.hearsay = target.hearsay.filter((address) => address !== target.worked && !wrong.includes(address))
    const rest = target.addresses.filter((address) => address !== target.worked && !wrong.includes(address))
    const all = target.worked === undefined ? rest : [target.worked, ...rest]
    const addresses = all.slice(0, MAX_ADDRESSES_PER_PEER)
    if (addresses.join() === target.addresses.join()) return
    target.addresses = addresses
    this.#keep(peerId, addresses)
  }
}

/** A peer that was not tried yet at these addresses. The first was put first because it had worked. */
function newTarget(addresses: readonly string[]): Target {
  return {
    addresses,
    hearsay: [],
    news: 0,
    allowance: { left: MEMBER_DIALS_BURST, at: 0 },
    worked: addresses[0],
    wrong: new Map(),
    failed: false,
    nextAt: 0,
    pauseMs: RETRY_MIN_MS,
  }
}
