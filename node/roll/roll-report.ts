import type { Roll, Turn } from './roll.ts'

/** What a report takes from a machine's signed receipt. */
export interface ReportedReceipt {
  readonly verified: boolean
  readonly release: number
  /** Blocks that were written. */
  readonly blocks: number
  readonly seconds: number
  /** Who sent how many blocks. */
  readonly from: readonly { readonly name: string; readonly blocks: number }[]
  /** A block that was wrong though the write log called it clean. */
  readonly missed?: number
}

/** One machine of a roll that has ended (or of one that runs, as far as it is known). */
export interface ReportRow extends Partial<ReportedReceipt> {
  readonly machine: string
  readonly turn: Turn
  readonly why: string
}

/** What came of a roll: how many machines ended in which way, and one row for each machine. */
export interface RollReport {
  readonly roll: string
  readonly verified: number
  readonly failed: number
  readonly skipped: number
  readonly rows: readonly ReportRow[]
}

/** What became of each machine; `receipts` by the machine's id, those that the roll's document names. */
export function reportOf(roll: Roll, receipts: ReadonlyMap<string, ReportedReceipt>): RollReport {
  const count = (turn: Turn): number => roll.machines.filter((one) => one.turn === turn).length
  return {
    roll: roll.roll,
    verified: count('verified'),
    failed: count('failed'),
    skipped: count('skipped'),
    // Only of an end does the document name the receipt that tells of it.
    rows: roll.machines.map(({ id, name, turn, why }) => ({
      machine: name,
      turn,
      why,
      ...(turn === 'verified' || turn === 'failed' ? receipts.get(id) : undefined),
    })),
  }
}
