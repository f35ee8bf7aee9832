import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'
import { LINK_LOST_PATIENCE_MS, LINK_OLD_UPTIME_S, LINK_SETTLE_MS } from './limits.ts'
import type { NetworkWatch } from './network-watch.ts'

/** What a {@link LinkWatch} asks of the computer. */
interface LinkWatchOptions {
  /** Called with a sentence when a card has lost its link or its addresses, and when it has them again. */
  readonly report: (kind: 'warning' | 'note', text: string) => void
  /** Milliseconds of any clock (@default performance.now). */
  readonly now?: () => number
  /** What the kernel says of a card: a file of /sys/class/net/CARD, trimmed; undefined if there is none. */
  readonly fact?: (card: string, name: string) => string | undefined
  /** Seconds since the computer was started. */
  readonly uptimeSeconds?: () => number
}

/**
 * What becomes of the links of the network cards, and whether it is worth waiting for the network. A switch with spanning tree
 * lets nothing through for 30 s after a link came up (IEEE 802.1D: twice the forward delay of 15 s), as it does when a machine
 * boots. When the link of a card came up before this process began is not known: the card counts as new, unless its link came up
 * once only, and the computer was not started a moment ago.
 */
export class LinkWatch {
  readonly #watch: NetworkWatch
  readonly #options: Required<LinkWatchOptions>
  /** Cards that have an address, and since when their link is taken to be up. */
  readonly #up = new Map<string, number>()
  /** Cards that had one, and when they lost it. */
  readonly #lost = new Map<string, number>()
  /** When somebody was reached last. */
  #workedAt = Number.NEGATIVE_INFINITY

  constructor(watch: NetworkWatch, options: LinkWatchOptions) {
    this.#watch = watch
    this.#options = {
      now: () => performance.now(),
      fact: readFact,
      uptimeSeconds: uptime,
      ...options,
    }
    const now = this.#options.now()
    for (const card of this.#cards()) this.#up.set(card, this.#isOld(card) ? Number.NEGATIVE_INFINITY : now)
    watch.onChange(() => this.#look())
  }

  /** Somebody was reached: nothing more is to be expected of the links that are up now. */
  works(): void {
    for (const card of this.#up.keys()) this.#up.set(card, Number.NEGATIVE_INFINITY)
    this.#workedAt = this.#options.now()
  }

  /** Whether peers that cannot be reached now may be a moment later: a link is new, or was lost a while ago. */
  isComing(): boolean {
    const now = this.#options.now()
    if ([...this.#up.values()].some((since) => now - since < LINK_SETTLE_MS)) return true
    return this.#missed().some(([, at]) => now - at < LINK_LOST_PATIENCE_MS)
  }

  /** Why no peer may be reached, as the rest of a sentence; undefined if this machine knows no reason. */
  fault(): string | undefined {
    const lost = this.#missed().map(([card]) => this.#why(card))
    if (lost.length === 0 && this.#up.size > 0) return undefined
    return lost.length > 0 ? lost.join(', ') : 'no network card of this machine has a link and an address'
  }

  /** Of the card whose link came up last: its name, and for how many milliseconds the switch may let nothing through. */
  youngest(): { readonly card: string; readonly restMs: number } | undefined {
    const now = this.#options.now()
    const young = [...this.#up].map(([card, since]) => ({ card, restMs: LINK_SETTLE_MS - (now - since) }))
    return young.filter(({ restMs }) => restMs > 0).sort((a, b) => b.restMs - a.restMs)[0]
  }

  /**
   * Cards that were lost, and when, as far as it may be by them that nobody is reached: not, if somebody was reached since then by
   * another card.
   */
  #missed(): [string, number][] {
    return [...this.#lost].filter(([, at]) => this.#up.size === 0 || at >= this.#workedAt)
  }

  #look(): void {
    const now = this.#options.now()
    const cards = new Set(this.#cards())
    for (const card of [...this.#up.keys()].filter((one) => !cards.has(one))) {
      this.#up.delete(card)
      this.#lost.set(card, now)
      this.#options.report('warning', `${this.#why(card)}; what needs the network goes on when it is back`)
    }
    for (const card of [...cards].filter((one) => !this.#up.has(one))) {
      this.#up.set(card, now)
      if (this.#lost.delete(card)) this.#options.report('note', `network card ${card} has a link again`)
    }
  }

  /** Cards that lead to other machines. */
  #cards(): string[] {
    const outside = this.#watch.addresses.filter(({ isLoopback, isVirtual }) => !isLoopback && !isVirtual)
    return [...new Set(outside.map(({ card }) => card))]
  }

  #isOld(card: string): boolean {
    const times = Number(this.#options.fact(card, 'carrier_up_count') ?? Number.NaN)
    return times === 1 && this.#options.uptimeSeconds() > LINK_OLD_UPTIME_S
  }

  #why(card: string): string {
    const { fact } = this.#options
    const state = fact(card, 'operstate')
    if (state === undefined) return `network card ${card} is gone`
    // Of a card that is switched off the kernel does not say whether there is a link.
    const hasLink = fact(card, 'carrier') === '1' && state !== 'down'
    return hasLink ? `network card ${card} has lost its addresses` : `network card ${card} has no link (cable, switch)`
  }
}

function readFact(card: string, name: string): string | undefined {
  try {
    return readFileSync(`/sys/class/net/${card}/${name}`, 'utf8').trim()
  } catch {
    return undefined
  }
}
