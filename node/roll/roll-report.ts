import type { Roll, Turn } from './roll.ts'

/** The part of a signed receipt that a report shows. */
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

/** One machine of a roll; of a roll that still runs, as far as is known. */
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

/**
 * Reports what became of each machine. `receipts` has the receipts that the roll's document names, by the id of the
 * machine.
 */
export function reportOf(roll: Roll, receipts: ReadonlyMap<string, ReportedReceipt>): RollReport {
  const count = (turn: Turn): number => roll.machines.filter((one) => one.turn === turn).length
  return {
    roll: roll.roll,
    verified: count('verified'),
    failed: count('failed'),
    skipped: count('skipped'),
    // The document names the receipt of this reset only when the machine's turn has ended.
    rows: roll.machines.map(({ id, name, turn, why }) => ({
      machine: name,
      turn,
      why,
      ...(turn === 'verified' || turn === 'failed' ? receipts.get(id) : undefined),
    })),
  }
}
