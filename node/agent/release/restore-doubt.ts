import { realpath } from 'node:fs/promises'
import { formatTime } from '../../../protocol/local-time.ts'
import { readDiskState } from '../machine/disk-state.ts'
import type { Machine } from '../machine/machine.ts'
import { lastReceipt } from '../receipts/own-receipts.ts'
import type { ReleaseMemory } from './release-memory.ts'

/**
 * Why the disk may be half restored: its last restore on this machine did not end, or did not verify. Undefined if it did, if there
 * was none since `memory` of the last publication, or if another disk is published than the one that this machine restores.
 */
export async function restoreDoubt(
  machine: Machine,
  disk: string,
  memory: ReleaseMemory | undefined,
): Promise<string | undefined> {
  const own = machine.config.disk
  if (own === undefined || (await realPath(own)) !== (await realPath(disk))) return undefined
  const receipt = await lastReceipt(machine)
  if (receipt !== undefined && !receipt.verified && receipt.number > (memory?.receipt ?? 0)) {
    const why = receipt.failure === null ? '' : `: ${receipt.failure.message}`
    return `the last restore of this disk, at ${formatTime(receipt.startedAt)}, did not end verified${why}`
  }
  // A restore that was killed leaves no receipt.
  const state = await readDiskState(machine.state)
  if (state?.state !== 'partial') return undefined
  return `the last restore of this disk, to release ${state.release} of ${state.image}, was cut off`
}

/** Number of this machine's own last receipt; 0 if there is none. */
export async function lastReceiptNumber(machine: Machine): Promise<number> {
  return (await lastReceipt(machine))?.number ?? 0
}

function realPath(path: string): Promise<string> {
  return realpath(path).catch(() => path)
}
