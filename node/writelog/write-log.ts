/**
 * The folder node/writelog is the record of what may differ from the release, so that a restore need not read the disk.
 * - `WriteLog` is what a restore sees. `scan-log` is no log: the restore reads the disk.
 * - `durable-bitmap` is our own log, kept in a file (`log-layout`, `log-file`, `log-storage`, `log-place`); `logged-disk` marks in it what NBD
 *   clients write.
 * - `tracked-log` joins our log to something else that sees writes, a `ChangeTracker`: the kernel (`dm-era`, by `era-device` and
 *   `running-era`) or QEMU (`qemu-bitmap`, by `qemu-image`).
 *
 * The order of writes is in docs/DURABILITY.md.
 */

import type { RangeSet } from '../../protocol/ranges.ts'

/** What a log says of the disk when it is opened. Everything treats `unknown` as dirty: the disk is scanned. */
export type LogState =
  | { readonly state: 'clean' | 'dirty'; readonly unclean?: boolean }
  /** `against`: the marks say truly what may differ from this other release; its root is in hexadecimal. */
  | {
      readonly state: 'unknown'
      readonly reason: string
      readonly against?: { readonly release: number; readonly root: string }
    }

/** Who tells what may have changed: nobody (a scan), our NBD server, the kernel’s dm-era, a bitmap of QEMU. */
export type LogSource = 'scan' | 'nbd' | 'dm-era' | 'qemu'

/**
 * The durable record of which units may differ from the release (docs/DURABILITY.md).
 * Order: mark durable → write the disk; and on restore: write → flush the disk → clear.
 * All ranges are in units (4 KiB unless the log says otherwise), half-open.
 */
export interface WriteLog {
  readonly source: LogSource
  /** Bytes per unit. */
  readonly unitSize: number
  /** What the log says of the whole disk. */
  open(): Promise<LogState>
  /**
   * Once the log is open: what outside of the log could have told that the log is not the newest one, or that the disk was
   * written past it, and did not. Such as `log file, file times`; `none` if there is nothing of the kind.
   */
  readonly witness: string
  /**
   * Units that may differ, in ascending order, as they are now. The caller asks only if the state is not `unknown`,
   * or names another release.
   */
  dirty(): Promise<RangeSet>
  /** Resolves when the marks are durable; only then may the disk be written. */
  mark(units: RangeSet): Promise<void>
  /** These units equal the release. The caller has flushed the disk before. Durable not later than {@link close}. */
  clear(units: RangeSet): Promise<void>
  /**
   * Begins the log anew after a look at the whole disk: exactly these units may differ from the release, whatever
   * the log said or doubted before. Durable when it resolves.
   */
  reset(dirty: RangeSet): Promise<void>
  /** Makes the log unknown, with this reason, until the next {@link reset}. Durable when it resolves. */
  doubt(reason: string): Promise<void>
  close(): Promise<void>
}
