/**
 * The room `receipts`: the signed records of what was restored, and of what failed.
 * own-receipts signs and keeps a receipt for each restore of this machine, also for one that failed. receipt-gatherer fetches those
 * of other machines, on the master and on operators' machines. Both keep them in `ReceiptArchive`.
 * receipt-floor is what a machine hears of its own receipts from those (ask-seen asks them): its state may be older than what they know.
 * went-back is what they note of a machine whose receipts contradict what it had told.
 */

import { MAX_RECEIPTS_PER_PAGE, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { type Check, object, optional, text, time } from '../../../protocol/json-shape.ts'
import { isSignedDocument, type ReplyOf, type SignedReceipt } from '../../../protocol/operate-messages.ts'
import { type Receipt, readReceipt } from '../../../protocol/receipt.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'
import type { Member } from '../../trust/members.ts'
import { GONE_MACHINES, RECEIPT_PAGE_BYTES, RECEIPTS_PER_MACHINE } from './limits.ts'

const DIGITS = String(Number.MAX_SAFE_INTEGER).length
/** Separates the machine from the number; below every character of a peer id. */
const SEPARATOR = '!'
const BEHIND_NUMBERS = '~'

const shortText = text(MAX_TEXT_BYTES)

/**
 * When this machine got a receipt, ISO 8601 by its own clock, and the name that the member list had then for the machine that
 * signed it. Absent from those of earlier versions.
 */
interface Arrival {
  readonly receivedAt?: string
  readonly member?: string
}
const hasArrival: Check<Arrival> = object({ receivedAt: optional(time), member: optional(shortText) })

/** A receipt as it is kept: what was signed, and when and from whom it came. */
type KeptReceipt = SignedDocument & Arrival
const isKeptReceipt: Check<KeptReceipt> = (value): value is KeptReceipt => isSignedDocument(value) && hasArrival(value)

/** A receipt as it is listed: `machine` is the name that the member list has for whoever signed it, or had last. */
export type ListedReceipt = Receipt & {
  readonly receivedAt?: string
  /** Peer id of the machine; absent from the answers of earlier versions. */
  readonly id?: string
  /** How the machine called itself, if that is another name: it was renamed since. */
  readonly named?: string
  /** True: no member has this peer id any more. */
  readonly gone?: true
}

/** Signed receipts in the state database: those of this machine, and on the master and operators' machines all that were gathered. */
export class ReceiptArchive {
  readonly #shelf: Shelf<KeptReceipt>

  constructor(state: StateDirectory) {
    this.#shelf = state.shelf('signed-receipts', storedDocument('a stored receipt', isKeptReceipt))
  }

  /**
   * Keeps receipts of one machine, durably, with the time at which they came, and its name in the member list. Of a machine the last
   * RECEIPTS_PER_MACHINE numbers are kept. Only the newest receipt and those that go are looked for: LevelDB has a file for each
   * boot, and to open them all would make each boot slower than the one before.
   */
  async add({ id, name }: Pick<Member, 'id' | 'name'>, receipts: readonly SignedReceipt[]): Promise<void> {
    const arrival: Arrival = { receivedAt: new Date().toISOString(), member: name }
    const puts = receipts.map(({ number, document }) => [keyOf(id, number), { ...document, ...arrival }] as const)
    const range = machineRange(id)
    const last = await this.#shelf.keys({ ...range, reverse: true, limit: 1 })
    const newest = Math.max(...last.map(numberOf), ...receipts.map(({ number }) => number))
    const oldest = keyOf(id, Math.max(0, newest - RECEIPTS_PER_MACHINE + 1))
    const old = await this.#shelf.keys({ gt: range.gt, lt: oldest })
    const stay = puts.filter(([key]) => key >= oldest)
    await this.#shelf.changeDurable(stay, old)
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

  /** Receipts of all machines. `memberName`: the name that the member list has for a peer id. */
  async list(memberName: (id: string) => string | undefined): Promise<ListedReceipt[]> {
    const receipts: ListedReceipt[] = []
    for await (const [key, kept] of this.#shelf.iterator()) {
      const receipt = readReceipt(kept)
      const id = machineOf(key)
      if (receipt !== undefined) receipts.push(listed(receipt, { ...kept, id, now: memberName(id) }))
    }
    return receipts
  }

  /**
   * Keeps the receipts of these machines, and those of the GONE_MACHINES others that told of one last: machines that were removed,
   * or that joined with another key. So what they did can be looked up, and does not pile up.
   */
  async keepOnly(ids: ReadonlySet<string>): Promise<void> {
    const others = new Set((await this.#shelf.keys()).map(machineOf).filter((id) => !ids.has(id)))
    if (others.size <= GONE_MACHINES) return
    const told: { id: string; at: string }[] = []
    for (const id of others) {
      for await (const [, { receivedAt = '' }] of this.#shelf.iterator({
        ...machineRange(id),
        reverse: true,
        limit: 1,
      }))
        told.push({ id, at: receivedAt })
    }
    const oldest = told.sort((a, b) => (a.at < b.at ? 1 : -1)).slice(GONE_MACHINES)
    const keys = await Promise.all(oldest.map(({ id }) => this.#shelf.keys(machineRange(id))))
    await this.#shelf.changeDurable([], keys.flat())
  }
}

/** A receipt under the name that the member list has, or had when it came: what a machine calls itself proves nothing. */
function listed(
  receipt: Receipt,
  { id, now, member, receivedAt }: Arrival & { readonly id: string; readonly now: string | undefined },
): ListedReceipt {
  const machine = now ?? member ?? receipt.machine
  return {
    ...receipt,
    id,
    machine,
    ...(machine === receipt.machine ? {} : { named: receipt.machine }),
    ...(now === undefined ? { gone: true } : {}),
    ...(receivedAt === undefined ? {} : { receivedAt }),
  }
}

/** What was signed, as it is passed on. */
function signedOf({ receivedAt: _, member: __, ...document }: KeptReceipt): SignedDocument {
  return document
}

function machineOf(key: string): string {
  return key.slice(0, key.indexOf(SEPARATOR))
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
