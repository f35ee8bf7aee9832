import { CLOCK_TOLERANCE_MS } from '../../../protocol/constants.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { readReceipt } from '../../../protocol/receipt.ts'
import { signedAt } from '../../trust/sign-role.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { Machine } from '../machine/machine.ts'
import { ReceiptArchive } from '../receipts/receipt-archive.ts'
import { MAX_METADATA_SILENCE_MS, MAX_RECEIPT_SILENCE_MS } from './limits.ts'

/** What speaks for or against the clock of the master. All times are Unix ms. */
export interface ClockEvidence {
  readonly now: number
  /** How far the clocks of members that were reached are ahead of the master's, in milliseconds. */
  readonly offsets: readonly number[]
  /** When the last restore of each other machine began, by its own clock. */
  readonly restores: readonly number[]
  /** When the newest metadata was signed, by the clock of the master then. */
  readonly signedAt: number
  /** Number and time of the newest release. */
  readonly before: { readonly release: number; readonly time: number } | undefined
}

/**
 * Why the clock may be wrong, each reason as one clause. A release that is signed by a clock that is ahead seems to come from the future
 * for as long as that. What members say now counts most. Without them, the clock must not be behind what was signed, nor far ahead of
 * the last sign of life.
 */
export function clockDoubts({ now, offsets, restores, signedAt: signed, before }: ClockEvidence): string[] {
  const clock = `the clock says ${formatTime(now)}`
  if (offsets.length > 0) {
    const offset = median(offsets)
    if (Math.abs(offset) <= CLOCK_TOLERANCE_MS) return []
    return [`${clock}, and the clocks of ${offsets.length} members that are here say ${formatTime(now + offset)}`]
  }
  const latest = now + CLOCK_TOLERANCE_MS
  if (before !== undefined && before.time > latest)
    return [
      `${clock}, and release ${before.release} was signed at ${formatTime(before.time)}: this clock is behind, or that one was ahead`,
    ]
  if (signed > latest)
    return [
      `${clock}, and the metadata of the site was signed at ${formatTime(signed)}: this clock is behind, or that one was ahead`,
    ]
  if (restores.length > 0 && median(restores) > latest)
    return [`${clock}, and most machines restored later, the middle one at ${formatTime(median(restores))}`]
  // A machine with a clock that is ahead says nothing here.
  const lived = restores.filter((time) => time <= latest)
  const [last, most, what] =
    lived.length > 0
      ? [Math.max(...lived), MAX_RECEIPT_SILENCE_MS, 'the last restore that a machine told of was at']
      : [signed, MAX_METADATA_SILENCE_MS, 'the metadata of the site was last signed at']
  const days = Math.floor((now - last) / DAY_MS)
  return now - last > most ? [`${clock}, and ${what} ${formatTime(last)}, ${days} days before`] : []
}

/** What this master knows that tells of the time. */
export async function clockEvidence(
  machine: Machine,
  before: VerifiedManifest | undefined,
  offsets: readonly number[],
): Promise<ClockEvidence> {
  const archive = new ReceiptArchive(machine.state)
  const restores: number[] = []
  for (const { id } of machine.trust.view().members) {
    const last = id === machine.config.id ? undefined : await archive.last(id)
    const receipt = last === undefined ? undefined : readReceipt(last.document)
    if (receipt !== undefined) restores.push(Date.parse(receipt.startedAt))
  }
  const newest = before === undefined ? undefined : { release: before.release, time: Date.parse(before.time) }
  return { now: Date.now(), offsets, restores, signedAt: signedAt(await machine.trust.roles()), before: newest }
}

const DAY_MS = 24 * 3600 * 1000

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}
