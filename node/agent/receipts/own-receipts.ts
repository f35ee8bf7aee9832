import { MAX_RECEIPT_PEERS } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { type ReceiptRecord, type ReceiptResult, readReceipt, signReceipt } from '../../../protocol/receipt-document.ts'
import type { Receipt } from '../../restore/receipt.ts'
import type { Machine } from '../machine/machine.ts'
import { ReceiptArchive } from './receipt-archive.ts'

/** Signs and keeps the receipt of a restore, durably. Errors: DISK_FULL. */
export async function keepReceipt(machine: Machine, receipt: Receipt): Promise<void> {
  const { image, release, root, verified, startedAt, seconds } = receipt
  const ms = Math.round(seconds * 1000)
  await keep(machine, { image, release, root, verified, startedAt, ms, failure: null, result: resultOf(receipt) })
}

/** Signs and keeps, durably, that a restore failed, and why. Errors: DISK_FULL. */
export async function keepFailure(
  machine: Machine,
  restore: { startedAt: number; image?: string | undefined; release?: number | undefined },
  error: unknown,
): Promise<void> {
  const { startedAt } = restore
  const message = error instanceof Error ? error.message : String(error)
  await keep(machine, {
    ...wanted(machine, restore.image, restore.release),
    verified: false,
    startedAt: new Date(startedAt).toISOString(),
    ms: Math.max(0, Date.now() - startedAt),
    failure: { code: isMeshError(error) ? error.code : 'UNEXPECTED', message },
    result: null,
  })
}

/** The record of the last restore of this machine, or of its failure. */
export async function lastReceipt(machine: Machine): Promise<ReceiptRecord | undefined> {
  const last = await new ReceiptArchive(machine.state).last(machine.config.id)
  return last === undefined ? undefined : readReceipt(last.document)
}

async function keep(machine: Machine, record: Omit<ReceiptRecord, 'number' | 'machine'>): Promise<void> {
  const archive = new ReceiptArchive(machine.state)
  const { id, name } = machine.config
  const number = ((await archive.last(id))?.number ?? 0) + 1
  const document = signReceipt({ ...record, number, machine: name }, await machine.key())
  await archive.add(id, [{ number, document }])
}

function resultOf({ blocks, bytes, peers, log }: Receipt): ReceiptResult {
  const { total, dirty, local, zero, fetched, audited } = blocks
  const { read, written, received } = bytes
  const { source, state, reason, missed = null } = log
  const most = peers.toSorted((a, b) => b.bad - a.bad || b.blocks - a.blocks).slice(0, MAX_RECEIPT_PEERS)
  return {
    blocks: { total, dirty, local, zero, fetched, audited },
    bytes: { read, written, received },
    peers: most.map(({ id, name, ...counts }) => ({
      id,
      name,
      blocks: counts.blocks,
      bytes: counts.bytes,
      bad: counts.bad,
    })),
    log: { source, state, reason, missed },
  }
}

/** What a restore that failed was to bring, as far as that is known. */
function wanted(
  machine: Machine,
  image = machine.config.image,
  release?: number,
): Pick<ReceiptRecord, 'image' | 'release' | 'root'> {
  if (image === undefined) return { image: null, release: null, root: null }
  const view = machine.trust.view()
  const manifest = release === undefined ? view.newest(image) : view.release(image, release)
  const root = manifest === undefined ? null : toHex(manifest.root)
  return { image, release: manifest?.release ?? release ?? null, root }
}
