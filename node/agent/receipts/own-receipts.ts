import { MAX_RECEIPT_PEERS } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { type Receipt, readReceipt, signReceipt } from '../../../protocol/receipt.ts'
import { systemLimit } from '../../disk/system-limit.ts'
import type { RestoreResult } from '../../restore/restore-result.ts'
import type { Machine } from '../machine/machine.ts'
import { ReceiptArchive } from './receipt-archive.ts'
import { newestNumber } from './receipt-floor.ts'

/** Signs and keeps the receipt of a restore, durably. Errors: DISK_FULL. */
export async function keepReceipt(machine: Machine, restored: RestoreResult): Promise<void> {
  const { image, release, root, verified, startedAt, seconds } = restored
  const ms = Math.round(seconds * 1000)
  const facts = { image, release, root, verified, startedAt, ms, failure: null, result: resultOf(restored) }
  await keep(machine, { ...facts, ...toldOf(restored.offenders) })
}

/** Signs and keeps, durably, that a restore failed, and why. Errors: DISK_FULL. */
export async function keepFailure(
  machine: Machine,
  restore: {
    startedAt: number
    ms: number
    image?: string | undefined
    release?: number | undefined
    offenders?: RestoreResult['offenders'] | undefined
  },
  thrown: unknown,
): Promise<void> {
  const error = systemLimit(thrown) ?? thrown
  const { startedAt, ms } = restore
  const message = error instanceof Error ? error.message : String(error)
  await keep(machine, {
    ...wanted(machine, restore.image, restore.release),
    verified: false,
    startedAt: new Date(startedAt).toISOString(),
    ms,
    failure: { code: isMeshError(error) ? error.code : 'UNEXPECTED', message },
    result: null,
    ...toldOf(restore.offenders ?? []),
  })
}

/** The record of the last restore of this machine, or of its failure. */
export async function lastReceipt(machine: Machine): Promise<Receipt | undefined> {
  const last = await new ReceiptArchive(machine.home).last(machine.config.id)
  return last === undefined ? undefined : readReceipt(last.document)
}

async function keep(machine: Machine, receipt: Omit<Receipt, 'number' | 'machine'>): Promise<void> {
  const archive = new ReceiptArchive(machine.home)
  const { id, name } = machine.config
  const number = (await newestNumber(machine)) + 1
  const document = signReceipt({ ...receipt, number, machine: name }, await machine.key())
  await archive.add({ id, name }, [{ number, document }])
}

/** What of a result is signed. A receipt has room for so many peers: those that sent wrong blocks, then those that sent most. */
function resultOf({ blocks, bytes, peers, log, beyondImage }: RestoreResult): Receipt['result'] {
  const { missed = null, movedFrom = null } = log
  const most = peers.toSorted((a, b) => b.bad - a.bad || b.blocks - a.blocks).slice(0, MAX_RECEIPT_PEERS)
  return { blocks, bytes, peers: most, log: { ...log, missed, movedFrom }, beyondImage }
}

/** A receipt has room for so many: those that broke rules, then those that did most. */
function toldOf(offenders: RestoreResult['offenders']): Pick<Receipt, 'offenders'> {
  if (offenders.length === 0) return {}
  const faults = ({ wrong, violation }: (typeof offenders)[number]): number => wrong + violation
  const delays = ({ silent, slow, busy }: (typeof offenders)[number]): number => silent + slow + busy
  const worst = offenders.toSorted((a, b) => faults(b) - faults(a) || delays(b) - delays(a))
  return { offenders: worst.slice(0, MAX_RECEIPT_PEERS) }
}

/** What a restore that failed was to bring, as far as that is known. */
function wanted(
  machine: Machine,
  image = machine.config.image,
  release?: number,
): Pick<Receipt, 'image' | 'release' | 'root'> {
  if (image === undefined) return { image: null, release: null, root: null }
  const view = machine.trust.view()
  const manifest = release === undefined ? view.newest(image) : view.release(image, release)
  const root = manifest === undefined ? null : toHex(manifest.root)
  return { image, release: manifest?.release ?? release ?? null, root }
}
