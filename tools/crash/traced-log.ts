import type { LogState, WriteLog } from '../../node/writelog/write-log.ts'
import type { RangeSet } from '../../protocol/ranges.ts'

/** Names what a restore does with its log, so that the record shows which moments were cut. */
export class TracedLog implements WriteLog {
  readonly #log: WriteLog
  readonly #power: { activity: string }

  constructor(log: WriteLog, power: { activity: string }) {
    this.#log = log
    this.#power = power
  }

  get source(): WriteLog['source'] {
    return this.#log.source
  }

  get unitSize(): number {
    return this.#log.unitSize
  }

  get witness(): string {
    return this.#log.witness
  }

  open(): Promise<LogState> {
    return this.#during('open', () => this.#log.open())
  }

  dirty(): Promise<RangeSet> {
    return this.#log.dirty()
  }

  mark(units: RangeSet): Promise<void> {
    return this.#during('mark', () => this.#log.mark(units))
  }

  clear(units: RangeSet): Promise<void> {
    return this.#during('clear', () => this.#log.clear(units))
  }

  reset(dirty: RangeSet): Promise<void> {
    return this.#during('reset', () => this.#log.reset(dirty))
  }

  doubt(reason: string): Promise<void> {
    return this.#during('doubt', () => this.#log.doubt(reason))
  }

  close(): Promise<void> {
    return this.#during('close', () => this.#log.close())
  }

  async #during<T>(activity: string, work: () => Promise<T>): Promise<T> {
    const before = this.#power.activity
    this.#power.activity = `restore, ${activity}`
    try {
      return await work()
    } finally {
      this.#power.activity = before
    }
  }
}
