import type { Offender } from '../exchange/peer-ledger.ts'
import type { LogSource, LogState } from '../writelog/write-log.ts'

/**
 * What one restore that came to its end did: the last line of `mesh restore --json`, and what the machine's signed receipt
 * (protocol/receipt.ts) is made of. Fields may be added, never renamed.
 */
export interface RestoreResult {
  readonly event: 'receipt'
  /** True only if every block that could have changed equals the signed manifest. */
  readonly verified: boolean
  readonly image: string
  readonly release: number
  /** Root of the hash tree, hexadecimal. */
  readonly root: string
  /** `dirty` = `zero` + `local` + `staged` + `copied` + `fetched`. */
  readonly blocks: {
    readonly total: number
    /** Blocks that differed from the release, or that the log said might. */
    readonly dirty: number
    /** Dirty blocks that are all zeros in the release. */
    readonly zero: number
    /** Dirty blocks whose content stood on a disk of this computer. */
    readonly local: number
    /** Dirty blocks whose content had been fetched ahead, while the machine ran. */
    readonly staged: number
    /** Dirty blocks whose content this restore had got for other blocks before. */
    readonly copied: number
    /** Dirty blocks that came from other machines, in whole or in part. */
    readonly fetched: number
    /** Blocks that the log called clean and that were hashed all the same. */
    readonly audited: number
  }
  readonly bytes: {
    readonly read: number
    readonly written: number
    /** Content of blocks and hash pages that came over the network. */
    readonly received: number
  }
  /** Who delivered something, or sent wrong blocks. */
  readonly peers: readonly {
    readonly id: string
    readonly name: string
    /** Blocks of the image it delivered. */
    readonly blocks: number
    readonly bytes: number
    /** Wrong blocks it delivered; the peer was banned. */
    readonly bad: number
  }[]
  /** Who cost this machine time since its command began, how often and by what; `reason`: of what it was banned for last. */
  readonly offenders: readonly (Offender & { readonly name: string })[]
  readonly log: {
    readonly source: LogSource
    readonly state: LogState['state']
    readonly reason: string
    /** What could have told that the log is not the newest one, and did not ({@link WriteLog.witness}). */
    readonly witness: string
    /** A block that was wrong though the log called it clean, so that the disk was scanned. */
    readonly missed?: number
    /** The log was kept against this release until now, and what differs between the two was added to it. */
    readonly movedFrom?: number
  }
  readonly seconds: number
  readonly machine: string
  /** ISO 8601. */
  readonly startedAt: string
  /** Bytes of the disk behind the image, which are left alone. */
  readonly beyondImage: number
}
