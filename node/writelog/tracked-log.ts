import assert from 'node:assert/strict'
import { RangeSet } from '../../protocol/ranges.ts'
import type { Changes, ChangeTracker } from './change-tracker.ts'
import type { DurableBitmap } from './durable-bitmap.ts'
import type { LogSource, LogState, WriteLog } from './write-log.ts'

type Unknown = Extract<Changes, { state: 'unknown' }>

/**
 * A write log kept by something outside this program. A tracker can only add, so what a restore has put right already is
 * kept in a bitmap of our own: on opening, the tracker's changes are marked there, durably, and a new period begins, so that
 * they are not found once more by the next opening. The bitmap names the period that goes with it
 * (docs/DURABILITY.md, "Logs of change trackers").
 */
export class TrackedLog implements WriteLog {
  readonly source: LogSource
  readonly granuleSize: number
  readonly #bitmap: DurableBitmap
  readonly #tracker: ChangeTracker

  /** The bitmap's granule must be the tracker's. */
  constructor(bitmap: DurableBitmap, tracker: ChangeTracker) {
    assert(bitmap.granuleSize === tracker.granuleSize, 'bitmap and tracker count the same granules')
    this.#bitmap = bitmap
    this.#tracker = tracker
    this.source = tracker.source
    this.granuleSize = bitmap.granuleSize
  }

  /** Errors: also those of the tracker, for a disk that must not be restored now. */
  async open(): Promise<LogState> {
    const state = await this.#bitmap.open()
    // Asked also if the log is unknown already: it may refuse.
    const changes = await this.#tracker.changedSince(this.#bitmap.period)
    if (state.state === 'unknown' && state.against === undefined) return state
    if (changes.state === 'unknown') return this.#doubted(changes.reason)
    const doubt = changes.granules.isEmpty ? await this.#writtenPast() : await this.#takeOver()
    if (doubt !== undefined || state.state === 'unknown') return doubt ?? state
    return { state: this.#bitmap.dirtyCount === 0 ? 'clean' : 'dirty' }
  }

  dirty(): Promise<RangeSet> {
    return this.#bitmap.dirty()
  }

  mark(granules: RangeSet): Promise<void> {
    return this.#bitmap.mark(granules)
  }

  clear(granules: RangeSet): Promise<void> {
    return this.#bitmap.clear(granules)
  }

  /** The new period runs before the bitmap names it, and the old one until then: a crash between loses nothing. */
  async reset(dirty: RangeSet): Promise<void> {
    const period = await this.#tracker.begin()
    await this.#bitmap.reset(dirty, period)
    await this.#tracker.end(period)
  }

  doubt(reason: string): Promise<void> {
    return this.#bitmap.doubt(reason)
  }

  close(): Promise<void> {
    return this.#bitmap.close()
  }

  /** A disk that has changed though the tracker has seen nothing was written in some other way. */
  async #writtenPast(): Promise<Unknown | undefined> {
    if (!(await this.#bitmap.writtenSinceClosed())) return undefined
    return this.#doubted(`the disk was written, and ${this.source} has not seen it`)
  }

  /** Durable before anything is done about it: what made the tracker say so may look different at the next boot. */
  async #doubted(reason: string): Promise<Unknown> {
    await this.#bitmap.doubt(reason)
    return { state: 'unknown', reason }
  }

  /**
   * The tracker's changes become marks, and a new period follows the old one without a gap: it begins before the old one is
   * read to its end, and is named only when the marks are durable. What is written meanwhile may be in both.
   */
  async #takeOver(): Promise<Unknown | undefined> {
    const period = await this.#tracker.begin()
    const changes = await this.#tracker.changedSince(this.#bitmap.period)
    if (changes.state === 'unknown') return this.#doubted(changes.reason)
    await this.#bitmap.mark(changes.granules.intersect(RangeSet.of(0, this.#bitmap.granules)))
    await this.#bitmap.enter(period)
    await this.#tracker.end(period)
    return undefined
  }
}
