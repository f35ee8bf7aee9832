/** What a roll takes from the signed receipt of a machine. */
export interface ReceiptSummary {
  /** Names it among the receipts of the machine. */
  readonly key: string
  readonly verified: boolean
  /** Why the restore failed; empty if that is not known, or it did not. */
  readonly reason: string
  /** What was restored; 0 if it never came to know. */
  readonly release: number
  /** Blocks that were restored. */
  readonly blocks: number
  readonly seconds: number
  /** Who sent how many blocks. */
  readonly from: readonly { readonly name: string; readonly blocks: number }[]
  /** A block that was wrong though the write log called it clean. */
  readonly missed?: number
}
