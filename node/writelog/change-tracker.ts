import type { RangeSet } from '../../protocol/ranges.ts'

/** What a tracker remembers of a period. `unknown`: everything may have changed. */
export type Changes =
  | { readonly state: 'known'; readonly granules: RangeSet }
  | { readonly state: 'unknown'; readonly reason: string }

/**
 * Something outside this program that sees every write to a disk and remembers where it went: a dm-era device, a dirty
 * bitmap of QEMU. It only ever adds; what a restore has put right is remembered elsewhere ({@link TrackedLog}).
 */
export interface ChangeTracker {
  readonly source: 'dm-era' | 'qemu'
  /** Bytes per granule: a power of two, at least a sector. */
  readonly granuleSize: number
  /**
   * Granules written since the period began that {@link begin} named so; perhaps more, never fewer. Anything that casts
   * doubt on that (another period's records, a record left inconsistent, a device whose writes escape it) is `unknown`.
   */
  changedSince(period: string): Promise<Changes>
  /**
   * Begins a period, durably, and names it: writes from now on are in `changedSince(name)`. The period before goes on
   * too until {@link end}, so a crash between the two loses nothing. Errors: whatever makes it unsafe to go on with a
   * restore; a tracker that can only not remember may name a period that is unknown.
   */
  begin(): Promise<string>
  /** Every period but this one may be forgotten. */
  end(keep: string): Promise<void>
}
