import assert from 'node:assert/strict'
import { RangeSet } from '../../protocol/ranges.ts'
import type { Changes, ChangeTracker } from './change-tracker.ts'
import type { DurableBitmap } from './durable-bitmap.ts'
import type { LogSource, LogState, WriteLog } from './write-log.ts'

type Unknown = Extract<Changes, { state: 'unknown' }>

/**
 * A write log kept by something outside this program. A tracker can only add, so a bitmap of our own remembers what a
 * restore has put right already. On opening, the tracker's changes are marked in the bitmap, durably, and a new period
 * begins, so that the next opening does not find them again. The bitmap names the period that goes with it
 * (docs/DURABILITY.md, "Logs of change trackers").
 */
export class TrackedLog implements WriteLog {
  readonly source: LogSource
  readonly unitSize: number
  readonly #bitmap: DurableBitmap
  readonly #tracker: ChangeTracker

  /** Both must count in units of the same size. */
  constructor(bitmap: DurableBitmap, tracker: ChangeTracker) {
    assert(bitmap.unitSize === tracker.unitSize, 'bitmap and tracker count the same units')
    this.#bitmap = bitmap
    this.#tracker = tracker
    this.source = tracker.source
    this.unitSize = bitmap.unitSize
  }

  get witness(): string {
    return this.#bitmap.witness
  }

  /** Errors: also those of the tracker, for a disk that must not be restored now. */
  async open(): Promise<LogState> {
    const state = await this.#bitmap.open()
    // The tracker is asked also if the log is unknown already, because it may refuse the restore.
    const changes = await this.#tracker.changedSince(this.#bitmap.period)
    if (state.state === 'unknown' && state.against === undefined) return state
    if (changes.state === 'unknown') return this.#doubted(changes.reason)
    const doubt = changes.units.isEmpty ? await this.#writtenPast() : await this.#takeOver()
    if (doubt !== undefined || state.state === 'unknown') return doubt ?? state
    return { state: this.#bitmap.dirtyCount === 0 ? 'clean' : 'dirty' }
  }

  dirty(): Promise<RangeSet> {
    return this.#bitmap.dirty()
  }

  mark(units: RangeSet): Promise<void> {
    return this.#bitmap.mark(units)
  }

  clear(units: RangeSet): Promise<void> {
    return this.#bitmap.clear(units)
  }

  /**
   * The new period begins before the bitmap names it, and the old one goes on until then: a crash between the two loses
   * nothing.
   */
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

  /**
   * Why the log cannot be believed if the disk has changed and the tracker has seen nothing: somebody wrote in another
   * way.
   */
  async #writtenPast(): Promise<Unknown | undefined> {
    if (!(await this.#bitmap.writtenSinceClosed())) return undefined
    return this.#doubted(`the disk was written, and ${this.source} has not seen it`)
  }

  /** The doubt is durable before anything is done about it: at the next boot its cause may not be visible any more. */
  async #doubted(reason: string): Promise<Unknown> {
    await this.#bitmap.doubt(reason)
    return { state: 'unknown', reason }
  }

  /**
   * Makes marks of the tracker's changes, and lets a new period follow the old one without a gap. The new period begins
   * before the old one is read to its end, and the bitmap names it only when the marks are durable. A write in between
   * may be in both periods.
   */
  async #takeOver(): Promise<Unknown | undefined> {
    const period = await this.#tracker.begin()
    const changes = await this.#tracker.changedSince(this.#bitmap.period)
    if (changes.state === 'unknown') return this.#doubted(changes.reason)
    await this.#bitmap.mark(changes.units.intersect(RangeSet.of(0, this.#bitmap.units)))
    await this.#bitmap.enter(period)
    await this.#tracker.end(period)
    return undefined
  }
}
