import type { RangeSet } from '../../protocol/ranges.ts'

/** What a tracker remembers of a period. `unknown`: every unit may have changed. */
export type Changes =
  | { readonly state: 'known'; readonly units: RangeSet }
  | { readonly state: 'unknown'; readonly reason: string }

/**
 * Something outside this program that sees every write to a disk and remembers its place: a dm-era device, or a dirty
 * bitmap of QEMU. A tracker only ever adds places. What a restore has put right is remembered by {@link TrackedLog}.
 */
export interface ChangeTracker {
  readonly source: 'dm-era' | 'qemu'
  /** Bytes per unit: a power of two, at least a sector. */
  readonly unitSize: number
  /**
   * Units written since {@link begin} began the period of this name. Perhaps more units, never fewer. The answer
   * is `unknown` if anything casts doubt on that: the records are of another period, a record is inconsistent, or
   * writes can pass the device by.
   */
  changedSince(period: string): Promise<Changes>
  /**
   * Begins a period, durably, and returns its name: writes from now on are in `changedSince(name)`. The period before
   * goes on until {@link end}, so that a crash between the two calls loses nothing. Errors: whatever makes it unsafe to
   * go on with a restore. A tracker that merely cannot remember returns the name of a period that will be unknown.
   */
  begin(): Promise<string>
  /** The tracker may forget every period but `keep`. */
  end(keep: string): Promise<void>
}
