/** What is known of one peer since this process began. */
export interface PeerRecord {
  readonly id: string
  /** Verified blocks and pages it delivered, and their bytes. */
  blocks: number
  bytes: number
  /** Blocks it delivered that were not what was asked. */
  bad: number
  /** Times it was found stalled. */
  stalls: number
  /** Why it is never asked again. */
  banned?: string
}

/** Remembers how peers behave: counts and bans. */
export class PeerLedger {
  readonly #records = new Map<string, PeerRecord>()

  of(id: string): PeerRecord {
    let record = this.#records.get(id)
    if (record === undefined) {
      record = { id, blocks: 0, bytes: 0, bad: 0, stalls: 0 }
      this.#records.set(id, record)
    }
    return record
  }

  delivered(id: string, bytes: number): void {
    const record = this.of(id)
    record.blocks++
    record.bytes += bytes
  }

  ban(id: string, reason: string): void {
    this.of(id).banned ??= reason
  }

  isBanned(id: string): boolean {
    return this.#records.get(id)?.banned !== undefined
  }

  all(): readonly PeerRecord[] {
    return [...this.#records.values()]
  }
}
