/**
 * The room `receipts`: the signed records of what was restored, and of what failed.
 * own-receipts signs and keeps a receipt for each restore of this machine, also for one that failed. receipt-gatherer fetches those
 * of other machines, on the master and on operators' machines. Both keep them in `ReceiptArchive`.
 * receipt-floor is what a machine hears of its own receipts from those (ask-seen asks them): its state may be older than what they know.
 * went-back is what they note of a machine whose receipts contradict what it had told.
 */

import { MAX_RECEIPTS_PER_PAGE } from '../../../protocol/constants.ts'
import { type Check, object, optional, time } from '../../../protocol/json-shape.ts'
import { isSignedDocument, type ReplyOf, type SignedReceipt } from '../../../protocol/operate-messages.ts'
import { type Receipt, readReceipt } from '../../../protocol/receipt.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'
import { RECEIPT_PAGE_BYTES, RECEIPTS_PER_MACHINE } from './limits.ts'

const DIGITS = String(Number.MAX_SAFE_INTEGER).length
/** Separates the machine from the number; below every character of a peer id. */
const SEPARATOR = '!'
const BEHIND_NUMBERS = '~'

/** When this machine got a receipt, ISO 8601 by its own clock; absent from those of earlier versions. */
const arrival = { receivedAt: optional(time) }
type Arrival = { readonly receivedAt?: string }
const hasArrival: Check<Arrival> = object(arrival)

/** A receipt as it is kept: what was signed, and when it came. */
type KeptReceipt = SignedDocument & Arrival
const isKeptReceipt: Check<KeptReceipt> = (value): value is KeptReceipt => isSignedDocument(value) && hasArrival(value)

/** A receipt as it is listed. */
export type ListedReceipt = Receipt & Arrival

/** Signed receipts in the state database: those of this machine, and on the master and operators' machines all that were gathered. */
export class ReceiptArchive {
  readonly #shelf: Shelf<KeptReceipt>

  constructor(state: StateDirectory) {
    this.#shelf = state.shelf('signed-receipts', storedDocument('a stored receipt', isKeptReceipt))
  }

  /** Keeps receipts of one machine, durably, with the time at which they came; the oldest ones go when there are more than RECEIPTS_PER_MACHINE. */
  async add(id: string, receipts: readonly SignedReceipt[]): Promise<void> {
    const receivedAt = new Date().toISOString()
    const puts = receipts.map(({ number, document }) => [keyOf(id, number), { ...document, receivedAt }] as const)
    const before = await this.#shelf.keys(machineRange(id))
    const keys = [...new Set([...before, ...puts.map(([key]) => key)])].sort()
    const old = new Set(keys.slice(0, -RECEIPTS_PER_MACHINE))
    const stay = puts.filter(([key]) => !old.has(key))
    await this.#shelf.changeDurable(stay, [...old])
  }

  /** The newest receipt of a machine. */
  async last(id: string): Promise<SignedReceipt | undefined> {
    const options = { ...machineRange(id), reverse: true, limit: 1 }
    for await (const [key, kept] of this.#shelf.iterator(options))
      return { number: numberOf(key), document: signedOf(kept) }
    return undefined
  }

  /** Receipts of a machine with numbers above `since`, as many as fit into one answer. */
  async page(id: string, since: number): Promise<ReplyOf<'receipts'>> {
    const receipts: SignedReceipt[] = []
    let bytes = 0
    for await (const [key, kept] of this.#shelf.iterator({ gt: keyOf(id, since), lt: machineRange(id).lt })) {
      const document = signedOf(kept)
      bytes += Buffer.byteLength(document.text)
      const isFull = receipts.length === MAX_RECEIPTS_PER_PAGE || bytes > RECEIPT_PAGE_BYTES
      if (isFull && receipts.length > 0) return { receipts, more: true }
      receipts.push({ number: numberOf(key), document })
    }
    return { receipts, more: false }
  }

  /** Receipts of all machines. */
  async list(): Promise<ListedReceipt[]> {
    const receipts: ListedReceipt[] = []
    for await (const [, document] of this.#shelf.iterator()) {
      const receipt = readReceipt(document)
      const { receivedAt } = document
      if (receipt !== undefined) receipts.push({ ...receipt, ...(receivedAt === undefined ? {} : { receivedAt }) })
    }
    return receipts
  }

  /** Forgets the receipts of machines that are not among these any more, so that they do not pile up. */
  async keepOnly(ids: ReadonlySet<string>): Promise<void> {
    const gone: string[] = []
    for (const key of await this.#shelf.keys()) if (!ids.has(key.slice(0, key.indexOf(SEPARATOR)))) gone.push(key)
    if (gone.length > 0) await this.#shelf.changeDurable([], gone)
  }
}

/** What was signed, as it is passed on. */
function signedOf({ receivedAt: _, ...document }: KeptReceipt): SignedDocument {
  return document
}

function keyOf(id: string, number: number): string {
  return `${id}${SEPARATOR}${String(number).padStart(DIGITS, '0')}`
}

function numberOf(key: string): number {
  return Number(key.slice(key.indexOf(SEPARATOR) + 1))
}

function machineRange(id: string): { gt: string; lt: string } {
  return { gt: `${id}${SEPARATOR}`, lt: `${id}${SEPARATOR}${BEHIND_NUMBERS}` }
}
