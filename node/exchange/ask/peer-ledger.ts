/** What is known of one peer since this process began. */
interface PeerRecord {
  readonly id: string
  /** Verified blocks and pages it delivered, and the bytes of content that came for them. */
  readonly blocks: number
  readonly bytes: number
  /** Blocks and pages it delivered that were not what was asked for. */
  readonly bad: number
  /** How often it was found stalled. */
  readonly stalls: number
  /** Why it is never asked again; absent: it may be asked. */
  readonly banned?: string
}

/** Remembers how peers behave: counts and bans. */
export class PeerLedger {
  readonly #records = new Map<string, PeerRecord>()

  /** The record of one peer; of a peer that did nothing yet it is all zeros. */
  of(id: string): PeerRecord {
    return this.#records.get(id) ?? { id, blocks: 0, bytes: 0, bad: 0, stalls: 0 }
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

  /** Counts that a peer was found stalled. */
  countStall(id: string): void {
    this.#update(id, { stalls: this.of(id).stalls + 1 })
  }

  /** The first reason is kept. */
  ban(id: string, reason: string): void {
    this.#update(id, { banned: this.of(id).banned ?? reason })
  }

  isBanned(id: string): boolean {
    return this.of(id).banned !== undefined
  }

  /** Records of all peers that did something. */
  all(): readonly PeerRecord[] {
    return [...this.#records.values()]
  }

  #update(id: string, change: Partial<PeerRecord>): void {
    this.#records.set(id, { ...this.of(id), ...change })
  }
}
