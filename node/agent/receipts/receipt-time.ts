import { CLOCK_TOLERANCE_MS } from '../../../protocol/constants.ts'
import { EARLIEST_CLOCK_MS } from '../../trust/trust-store.ts'
import type { ListedReceipt } from './receipt-archive.ts'

/** A receipt, and the time that it is listed by. */
export type TimedReceipt = ListedReceipt & {
  /** True: `startedAt` cannot be right, so that the time at which the receipt came here counts. Absent: it can. */
  readonly clockWrong?: true
}

/**
 * Finds out which receipts tell a time that cannot be right: one before mesh was made, one after the receipt had come here, or
 * one before that of an earlier restore of the same machine (that only if it is known when the receipt came).
 */
export function judgeTimes(receipts: readonly ListedReceipt[]): TimedReceipt[] {
  const latest = new Map<string, number>()
  const judged = receipts
    .toSorted((a, b) => a.number - b.number)
    .map((receipt): TimedReceipt => {
      const { startedAt, receivedAt } = receipt
      // Two machines may have had the same name, one after the other.
      const machine = receipt.id ?? receipt.machine
      const [at, came] = [Date.parse(startedAt), receivedAt === undefined ? Number.NaN : Date.parse(receivedAt)]
      const wrong =
        at < EARLIEST_CLOCK_MS ||
        at > came + CLOCK_TOLERANCE_MS ||
        (receivedAt !== undefined && at < (latest.get(machine) ?? at) - CLOCK_TOLERANCE_MS)
      if (wrong) return { ...receipt, clockWrong: true }
      latest.set(machine, Math.max(at, latest.get(machine) ?? at))
      return receipt
    })
  return judged.toSorted((a, b) => (listedAt(a) ?? 0) - (listedAt(b) ?? 0))
}

/**
 * Unix milliseconds by which a receipt is listed: when the restore began by the clock of the machine, or if that is wrong, when
 * the receipt came here. Undefined: neither is known.
 */
export function listedAt({ startedAt, receivedAt, clockWrong }: TimedReceipt): number | undefined {
  if (clockWrong !== true) return Date.parse(startedAt)
  return receivedAt === undefined ? undefined : Date.parse(receivedAt)
}
