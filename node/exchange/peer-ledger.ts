import { BAN_MS, DOUBT_OFFENCES, LEDGER_MS } from './limits.ts'

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

/** What a peer did of each kind, of those that did anything. */
export type Offender = Record<Offence, number> & Pick<PeerRecord, 'id' | 'reason'>

/** What is remembered of a peer when the process has ended. Times in Unix ms. */
export interface PastConduct {
  /** When it last cost others time, or was heard of. */
  readonly at: number
  /** How often it cost others time. */
  readonly offences: number
  readonly bans: number
  readonly banned?: Ban
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
  /** Offences of earlier processes. */
  readonly #past = new Map<string, number>()
  readonly #offendedAt = new Map<string, number>()
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
    this.#offendedAt.set(id, this.#now())
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

  /** Peers that cost others time since this process began. */
  offenders(): Offender[] {
    return this.all().flatMap(({ id, offences, reason }) => {
      if (Object.keys(offences).length === 0) return []
      const none = { wrong: 0, violation: 0, silent: 0, slow: 0, busy: 0 }
      return [{ id, ...none, ...offences, ...(reason === undefined ? {} : { reason }) }]
    })
  }

  /**
   * Whether a peer is asked only for what no better one has: it was silent, or it has cost others time twice as often as the middle one of
   * the other peers that are known.
   */
  isDoubtful(id: string): boolean {
    if (this.#now() - (this.#offendedAt.get(id) ?? 0) >= LEDGER_MS) return false
    if (this.times(id, 'silent') > 0) return true
    const own = this.#offencesOf(id)
    if (own < DOUBT_OFFENCES) return false
    const others = [...new Set([...this.#records.keys(), ...this.#past.keys()])].filter((other) => other !== id)
    const counts = others.map((other) => this.#offencesOf(other)).toSorted((a, b) => a - b)
    return own > 2 * (counts[Math.floor(counts.length / 2)] ?? 0)
  }

  /** Begins with what an earlier process has remembered of a peer, unless that is a day old. Returns whether it was of use. */
  recall(id: string, { at, offences, bans, banned }: PastConduct): boolean {
    const ageMs = this.#now() - at
    if (ageMs < 0 || ageMs >= LEDGER_MS) return false
    this.#past.set(id, offences)
    this.#offendedAt.set(id, at)
    this.#banCounts.set(id, bans)
    if (banned !== undefined) this.#bans.set(id, { ...banned, until: Math.min(banned.until, at + LEDGER_MS) })
    return true
  }

  /** What the next process is to remember, by peer id: of peers that did anything in this one. */
  remembered(): [string, PastConduct][] {
    return this.all().map(({ id }) => {
      const banned = this.#banOf(id)
      const bans = this.#banCounts.get(id) ?? 0
      const past = { at: this.#offendedAt.get(id) ?? this.#now(), offences: this.#offencesOf(id), bans }
      return [id, banned === undefined ? past : { ...past, banned }]
    })
  }

  /** Records of all peers that did something. */
  all(): readonly PeerRecord[] {
    return [...this.#records.values()]
  }

  #offencesOf(id: string): number {
    return Object.values(this.of(id).offences).reduce((sum, times) => sum + times, this.#past.get(id) ?? 0)
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
