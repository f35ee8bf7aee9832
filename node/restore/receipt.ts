import type { LogSource } from '../writelog/write-log.ts'

/** The record of one restore; the last line of `mesh restore --json`. Fields may be added, never renamed. */
export interface Receipt {
  readonly event: 'receipt'
  /** True only if every block that could have changed equals the signed manifest. */
  readonly verified: boolean
  readonly image: string
  readonly release: number
  /** Root of the hash tree, hexadecimal. */
  readonly root: string
  readonly blocks: {
    readonly total: number
    /** Blocks that differed from the release. */
    readonly dirty: number
    /** Dirty blocks whose content was found on this disk or already fetched for another block. */
    readonly local: number
    /** Dirty blocks that are all zeros in the release. */
    readonly zero: number
    readonly fetched: number
  }
  readonly bytes: {
    readonly read: number
    readonly written: number
    /** Blocks and hash pages that came over the network. */
    readonly received: number
  }
  readonly peers: readonly ReceiptPeer[]
  readonly log: { readonly source: LogSource; readonly state: string; readonly reason: string }
  readonly seconds: number
  readonly machine: string
  /** ISO 8601. */
  readonly startedAt: string
  /** Bytes of the disk behind the image, which are left alone. */
  readonly beyondImage: number
}

export interface ReceiptPeer {
  readonly id: string
  readonly name: string
  /** Blocks of the image it delivered. */
  readonly blocks: number
  readonly bytes: number
  /** Wrong blocks it delivered; the peer was banned. */
  readonly bad: number
}
