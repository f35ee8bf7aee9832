import { MAX_RECEIPT_PEERS, MAX_ROLL_MACHINES, MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { type Check, list, literal, natural, object, optional, real, text, truth } from '../../protocol/json-shape.ts'
import type { ReceiptSummary } from './receipt-summary.ts'
import { isMissing, type Roll, TURNS, type Turn } from './roll.ts'

/** One machine of a roll; of a roll that still runs, as far as is known. */
export interface ReportRow extends Partial<Omit<ReceiptSummary, 'key' | 'reason'>> {
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
  /** Names of the machines that never came back, or were off all the time; absent from reports of earlier versions. */
  readonly missing?: readonly string[]
  readonly rows: readonly ReportRow[]
}

const shortText = text(MAX_TEXT_BYTES)
/** What a report must be that was kept in a file. */
export const isRollReport: Check<RollReport> = object({
  roll: shortText,
  verified: natural(),
  failed: natural(),
  skipped: natural(),
  missing: optional(list(shortText, MAX_ROLL_MACHINES)),
  rows: list(
    object({
      machine: shortText,
      turn: literal(...TURNS),
      why: shortText,
      verified: optional(truth),
      release: optional(natural()),
      blocks: optional(natural()),
      seconds: optional(real),
      from: optional(list(object({ name: shortText, blocks: natural() }), MAX_RECEIPT_PEERS)),
      missed: optional(natural()),
    }),
    MAX_ROLL_MACHINES,
  ),
})

/**
 * Reports what became of each machine. `receipts` has the receipts that the roll's document names, by the id of the
 * machine.
 */
export function reportOf(roll: Roll, receipts: ReadonlyMap<string, ReceiptSummary>): RollReport {
  const count = (turn: Turn): number => roll.machines.filter((one) => one.turn === turn).length
  return {
    roll: roll.roll,
    verified: count('verified'),
    failed: count('failed'),
    skipped: count('skipped'),
    missing: roll.machines.filter(isMissing).map(({ name }) => name),
    // The document names the receipt of this reset only when the machine's turn has ended.
    rows: roll.machines.map(({ id, name, turn, why }) => ({
      machine: name,
      turn,
      why,
      ...(turn === 'verified' || turn === 'failed' ? factsOf(receipts.get(id)) : undefined),
    })),
  }
}

function factsOf(receipt: ReceiptSummary | undefined): Omit<ReceiptSummary, 'key' | 'reason'> | undefined {
  if (receipt === undefined) return undefined
  const { key: _, reason: __, ...facts } = receipt
  return facts
}
