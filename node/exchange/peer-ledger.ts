import { BAN_MS, LEDGER_MS } from './limits.ts'

/**
 * What a peer does that costs others time: it sends wrong content, breaks the protocol, is silent, delivers next to nothing, or puts off
 * what it is asked for.
 */
type Offence = 'wrong' | 'violation' | 'silent' | 'slow' | 'busy'

/** How often a peer did what. */
type Offences = Readonly<Partial<Record<Offence, number>>>

/** What is known of one peer since this process began. */
interface PeerRecord {
  readonly id: string
  /** Verified blocks and pages it delivered, and the bytes of content that came for them. */
  readonly blocks: number
  readonly bytes: number
  /** Blocks and pages it delivered that were not what was asked for. */
  readonly bad: number
  readonly offences: Offences
  /** What it was banned for last, as the rest of a sentence that begins with its name. */
  readonly reason?: string
}

/** A peer that is not asked for a while, nor let in if it broke the protocol. Times in Unix ms. */
interface Ban {
  readonly until: number
  readonly refused: boolean
  readonly reason: string
}

/** Remembers how peers behave: counts and bans. A ban ends by itself; each further one within LEDGER_MS is twice as long. */
export class PeerLedger {
  readonly #records = new Map<string, PeerRecord>()
  readonly #bans = new Map<string, Ban>()
  readonly #banCounts = new Map<string, number>()
  readonly #now: () => number

  /** `now`: Unix ms. */
  constructor(now: () => number = Date.now) {
    this.#now = now
  }

  /** The record of one peer; of a peer that did nothing yet it is all zeros. */
  of(id: string): PeerRecord {
    return this.#records.get(id) ?? { id, blocks: 0, bytes: 0, bad: 0, offences: {} }
  }

  /** How often a peer did something since this process began. */
  times(id: string, offence: Offence): number {
    return this.of(id).offences[offence] ?? 0
  }

  /** Counts a verified block or page, for which `bytes` of content came. */
  countDelivered(id: string, bytes: number): void {
    const { blocks, bytes: before } = this.of(id)
    this.#update(id, { blocks: blocks + 1, bytes: before + bytes })
  }

  /** Counts an answer that was not what was asked for. */
  countBad(id: string): void {
    this.#update(id, { bad: this.of(id).bad + 1 })
  }

  /** Counts what costs time. */
  count(id: string, offence: Offence): void {
    this.#update(id, { offences: { ...this.of(id).offences, [offence]: this.times(id, offence) + 1 } })
  }

  /**
   * Does not ask a peer for a while, nor lets it in if it broke the protocol. `reason`: the rest of a sentence that begins with its name.
   * Returns until when, Unix ms.
   */
  ban(id: string, offence: Extract<Offence, 'wrong' | 'violation'>, reason: string): number {
    this.count(id, offence)
    this.#update(id, { reason })
    const before = this.#banCounts.get(id) ?? 0
    this.#banCounts.set(id, before + 1)
    const until = this.#now() + Math.min(BAN_MS * 2 ** before, LEDGER_MS)
    this.#bans.set(id, { until, refused: offence === 'violation', reason })
    return until
  }

  /** Whether a peer is asked for nothing now. */
  isBanned(id: string): boolean {
    return this.#banOf(id) !== undefined
  }

  /** Whether a peer may not even connect now. */
  isRefused(id: string): boolean {
    return this.#banOf(id)?.refused === true
  }

  /** Who is banned now. */
  banned(): { readonly id: string; readonly until: number; readonly reason: string }[] {
    return [...this.#bans.keys()].flatMap((id) => {
      const ban = this.#banOf(id)
      return ban === undefined ? [] : [{ id, until: ban.until, reason: ban.reason }]
    })
  }

  /** Records of all peers that did something. */
  all(): readonly PeerRecord[] {
    return [...this.#records.values()]
  }

  #banOf(id: string): Ban | undefined {
    const ban = this.#bans.get(id)
    if (ban === undefined || ban.until > this.#now()) return ban
    this.#bans.delete(id)
    return undefined
  }

  #update(id: string, change: Partial<PeerRecord>): void {
    this.#records.set(id, { ...this.of(id), ...change })
  }
}
