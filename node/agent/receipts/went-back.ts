import { isDeepStrictEqual } from 'node:util'
import { MAX_RECEIPT_BYTES, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { anyText, type Check, natural, nullable, object, text, time } from '../../../protocol/json-shape.ts'
import type { SignedReceipt } from '../../../protocol/operate-messages.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'
import type { Member } from '../../trust/members.ts'
import type { Machine } from '../machine/machine.ts'

/** A machine that told other receipts than before: its state directory came back from a copy, or two machines have one key. */
export interface WentBack {
  readonly machine: string
  /** Number of the last receipt that it had told. */
  readonly number: number
  /** ISO 8601: when that was noticed last. */
  readonly at: string
}

const named = { machine: text(MAX_TEXT_BYTES), number: natural(), at: time } as const

/** `text`: of the receipt that stands in the place of the last one now. */
type Kept = WentBack & { readonly text: string | null }
const isKept: Check<Kept> = object({ ...named, text: nullable(anyText(MAX_RECEIPT_BYTES)) })

const shelfOf = (state: StateDirectory): Shelf<Kept> =>
  state.shelf('receipts-went-back', storedDocument('what is kept of receipts that went back', isKept))

/**
 * Keeps that a machine does not have its last receipt any more, or has another one with that number (`now`). Returns whether that is
 * news. Durable when it resolves.
 */
export async function noteWentBack(
  { state }: Machine,
  member: Pick<Member, 'id' | 'name'>,
  last: SignedReceipt,
  now: SignedReceipt | undefined,
): Promise<boolean> {
  const known = await shelfOf(state).get(member.id)
  const fresh = { machine: member.name, number: last.number, text: now?.document.text ?? null }
  if (known !== undefined && isDeepStrictEqual({ ...known, at: '' }, { ...fresh, at: '' })) return false
  await shelfOf(state).putDurable(member.id, { ...fresh, at: new Date().toISOString() })
  return true
}

/** Machines whose receipts went back, by name. */
export async function listWentBack({ state, trust }: Pick<Machine, 'state' | 'trust'>): Promise<WentBack[]> {
  const found: WentBack[] = []
  for await (const [id, { machine, number, at }] of shelfOf(state).iterator())
    found.push({ machine: trust.view().memberById(id)?.name ?? machine, number, at })
  return found.sort((a, b) => (a.machine < b.machine ? -1 : 1))
}

/** Forgets machines that are not among these any more. */
export async function keepWentBack({ state }: Machine, ids: ReadonlySet<string>): Promise<void> {
  const gone = (await shelfOf(state).keys()).filter((id) => !ids.has(id))
  if (gone.length > 0) await shelfOf(state).changeDurable([], gone)
}

/** What people are told of it. */
export function describeWentBack({ machine, number }: Pick<WentBack, 'machine' | 'number'>): string {
  return `the receipts of ${machine} went back: it no longer has the receipt ${number} that it had told, or has another one with that number. Its state directory came back from a copy, or two machines run with one key`
}
