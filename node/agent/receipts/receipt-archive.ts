/**
 * The room `receipts`: the signed records of what was restored, and of what failed.
 * own-receipts signs and keeps a receipt for each restore of this machine, also for one that failed. receipt-gatherer fetches those
 * of other machines, on the master and on operators' machines. Both keep them in `ReceiptArchive`.
 */

import { MAX_RECEIPTS_PER_PAGE } from '../../../protocol/constants.ts'
import type { ReceiptPage } from '../../../protocol/operate-messages.ts'
import { type ReceiptRecord, readReceipt } from '../../../protocol/receipt-document.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { RECEIPT_PAGE_BYTES, RECEIPTS_PER_MACHINE } from './limits.ts'

export interface NumberedReceipt {
  readonly number: number
  readonly document: SignedDocument
}

const SUBLEVEL = 'signed-receipts'
const DIGITS = String(Number.MAX_SAFE_INTEGER).length
/** Separates the machine from the number; below every character of a peer id. */
const SEPARATOR = '!'
const BEHIND_NUMBERS = '~'

/** Signed receipts in the state database: those of this machine, and on the master and operators' machines all that were gathered. */
export class ReceiptArchive {
  readonly #state: StateDirectory

  constructor(state: StateDirectory) {
    this.#state = state
  }

  /** Keeps receipts of one machine, durably; the oldest ones go when there are more than RECEIPTS_PER_MACHINE. */
  async add(id: string, receipts: readonly NumberedReceipt[]): Promise<void> {
    const puts = receipts.map(({ number, document }) => [keyOf(id, number), document] as const)
    const before = await this.#shelf().keys(machineRange(id)).all()
    const keys = [...new Set([...before, ...puts.map(([key]) => key)])].sort()
    const old = new Set(keys.slice(0, -RECEIPTS_PER_MACHINE))
    const stay = puts.filter(([key]) => !old.has(key))
    await this.#state.changeDurable<SignedDocument>(SUBLEVEL, stay, [...old])
  }

  /** The newest receipt of a machine. */
  async last(id: string): Promise<NumberedReceipt | undefined> {
    const options = { ...machineRange(id), reverse: true, limit: 1 }
    for await (const [key, document] of this.#shelf().iterator(options)) return { number: numberOf(key), document }
    return undefined
  }

  /** Receipts of a machine with numbers above `since`, as many as fit into one answer. */
  async page(id: string, since: number): Promise<ReceiptPage> {
    const receipts: NumberedReceipt[] = []
    let bytes = 0
    for await (const [key, document] of this.#shelf().iterator({ gt: keyOf(id, since), lt: machineRange(id).lt })) {
      bytes += Buffer.byteLength(document.text)
      const isFull = receipts.length === MAX_RECEIPTS_PER_PAGE || bytes > RECEIPT_PAGE_BYTES
      if (isFull && receipts.length > 0) return { receipts, more: true }
      receipts.push({ number: numberOf(key), document })
    }
    return { receipts, more: false }
  }

  /** Receipts of all machines behind the key `after`, at most `limit`, and the key of the last one; none is left if that is absent. */
  async list(after: string, limit: number): Promise<{ receipts: ReceiptRecord[]; next?: string }> {
    const receipts: ReceiptRecord[] = []
    for await (const [key, document] of this.#shelf().iterator({ gt: after })) {
      const receipt = readReceipt(document)
      if (receipt !== undefined) receipts.push(receipt)
      if (receipts.length === limit) return { receipts, next: key }
    }
    return { receipts }
  }

  /** Forgets the receipts of machines that are not among these any more, so that they do not pile up. */
  async keepOnly(ids: ReadonlySet<string>): Promise<void> {
    const gone: string[] = []
    for await (const key of this.#shelf().keys()) if (!ids.has(key.slice(0, key.indexOf(SEPARATOR)))) gone.push(key)
    if (gone.length > 0) await this.#state.changeDurable<SignedDocument>(SUBLEVEL, [], gone)
  }

  #shelf() {
    return this.#state.sublevel<SignedDocument>(SUBLEVEL)
  }
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
