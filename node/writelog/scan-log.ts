import assert from 'node:assert/strict'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { LogState, WriteLog } from './write-log.ts'

/** No log at all: its state is always unknown, so the disk is scanned. Marks and clears live as long as the object. */
export class ScanLog implements WriteLog {
  readonly source = 'scan'
  readonly unitSize = GRANULE_SIZE_BYTES
  readonly witness = 'none'
  readonly #reason: string
  #dirty = RangeSet.empty
  #closed = false

  /** `reason`: why there is no log, for the receipt. */
  constructor(reason = 'no write log is kept for this disk') {
    assert(reason !== '')
    this.#reason = reason
  }

  async open(): Promise<LogState> {
    this.#assertOpen()
    return { state: 'unknown', reason: this.#reason }
  }

  async dirty(): Promise<RangeSet> {
    this.#assertOpen()
    return this.#dirty
  }

  async mark(units: RangeSet): Promise<void> {
    this.#assertOpen()
    this.#dirty = this.#dirty.union(units)
  }

  async clear(units: RangeSet): Promise<void> {
    this.#assertOpen()
    this.#dirty = this.#dirty.subtract(units)
  }

  async reset(dirty: RangeSet): Promise<void> {
    this.#assertOpen()
    this.#dirty = dirty
  }

  async doubt(): Promise<void> {
    this.#assertOpen()
  }

  async close(): Promise<void> {
    this.#closed = true
  }

  #assertOpen(): void {
    assert(!this.#closed, 'the write log is closed')
  }
}
