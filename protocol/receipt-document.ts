import { canonicalize } from '@tufjs/canonical-json'
import { MAX_RECEIPT_BYTES, MAX_RECEIPT_PEERS, MAX_TEXT_BYTES } from './constants.ts'
import { anyText, list, natural, nullable, object, type Shaped, text, truth } from './json-shape.ts'
import { isSigned, type SignedDocument, type SigningKey, signDocument } from './signed-document.ts'

const FORMAT = 1
/** UTF-8 takes up to three bytes a UTF-16 unit. */
const MAX_TEXT_CHARACTERS = MAX_TEXT_BYTES / 4
const shortText = text(MAX_TEXT_BYTES)

/** What was done, of a restore that got that far. */
const result = {
  blocks: object({
    total: natural(),
    dirty: natural(),
    local: natural(),
    zero: natural(),
    fetched: natural(),
    audited: natural(),
  }),
  bytes: object({ read: natural(), written: natural(), received: natural() }),
  /** Who delivered how many blocks, how many bytes, and how many of them wrong; those who delivered most. */
  peers: list(
    object({ id: shortText, name: shortText, blocks: natural(), bytes: natural(), bad: natural() }),
    MAX_RECEIPT_PEERS,
  ),
  /** `missed`: a block that was wrong though the log called it clean. */
  log: object({ source: shortText, state: shortText, reason: shortText, missed: nullable(natural()) }),
}

const record = {
  format: natural(1),
  /** Counted by the machine, from 1. */
  number: natural(),
  machine: shortText,
  /** When the restore began, ISO 8601, by the clock of the machine. */
  startedAt: shortText,
  ms: natural(),
  /** What it was to be restored to; null if it never came to know. */
  image: nullable(shortText),
  release: nullable(natural()),
  /** Hexadecimal. */
  root: nullable(shortText),
  /** Whether every block equals the release. */
  verified: truth,
  /** Why it failed; null if it did not. */
  failure: nullable(object({ code: shortText, message: shortText })),
  result: nullable(object(result)),
}

/** The record of one restore, or of one that failed, in the form that a machine signs (docs/PROTOCOL.md, receipts). */
export type ReceiptRecord = Omit<Shaped<typeof record>, 'format'>
export type ReceiptResult = NonNullable<ReceiptRecord['result']>

const isRecord = object(record)
const isText = anyText(MAX_RECEIPT_BYTES)

/** Texts are cleaned and cut to what a receipt may hold. */
export function signReceipt(receipt: ReceiptRecord, key: SigningKey): SignedDocument {
  const signed = signDocument('receipt', canonicalize({ ...(clean(receipt) as ReceiptRecord), format: FORMAT }), key)
  if (readReceipt(signed) === undefined) throw new Error(`receipt ${receipt.number} is not valid: ${signed.text}`)
  return signed
}

/** What a signed receipt says; undefined if signature, content or form is wrong. Whose receipt it may be is not looked at. */
export function readReceipt(signed: SignedDocument): ReceiptRecord | undefined {
  if (!isText(signed.text)) return undefined
  try {
    const value: unknown = JSON.parse(signed.text)
    if (!isRecord(value) || value.format !== FORMAT || canonicalize(value) !== signed.text) return undefined
    const { format: _, ...receipt } = value
    return isTime(receipt.startedAt) && isSigned('receipt', signed) ? receipt : undefined
  } catch {
    return undefined
  }
}

function isTime(iso: string): boolean {
  const time = Date.parse(iso)
  return !Number.isNaN(time) && new Date(time).toISOString() === iso
}

/** Control characters have no place on a terminal, and would not survive canonical JSON. */
function clean(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(/\p{C}/gu, ' ').slice(0, MAX_TEXT_CHARACTERS)
  if (Array.isArray(value)) return value.map(clean)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, clean(inner)]))
}
