import { canonicalize } from '@tufjs/canonical-json'
import { MAX_RECEIPT_BYTES, MAX_RECEIPT_PEERS, MAX_TEXT_BYTES } from './constants.ts'
import {
  anyText,
  type Check,
  list,
  natural,
  nullable,
  object,
  optional,
  type Shaped,
  text,
  time,
  truth,
} from './json-shape.ts'
import { readSigned, type SignedDocument, type SigningKey, signDocument } from './signed-document.ts'

const FORMAT = 1
/** UTF-8 takes up to three bytes a UTF-16 unit. */
const MAX_TEXT_CHARACTERS = MAX_TEXT_BYTES / 4
const shortText = text(MAX_TEXT_BYTES)

/** What was done, of a restore that got that far. */
const result = {
  blocks: object({
    total: natural(),
    /** `zero` + `local` + `staged` + `copied` + `fetched`, in receipts that have all of these. */
    dirty: natural(),
    zero: natural(),
    local: natural(),
    staged: optional(natural()),
    copied: optional(natural()),
    fetched: natural(),
    audited: natural(),
  }),
  bytes: object({ read: natural(), written: natural(), received: natural() }),
  /** Who delivered how many blocks, how many bytes, and how many of them wrong; those who delivered most. */
  peers: list(
    object({ id: shortText, name: shortText, blocks: natural(), bytes: natural(), bad: natural() }),
    MAX_RECEIPT_PEERS,
  ),
  log: object({
    source: shortText,
    state: shortText,
    reason: shortText,
    /** What could have told that the log is not the newest one, and did not. */
    witness: optional(shortText),
    /** A block that was wrong though the log called it clean. */
    missed: nullable(natural()),
    /** The release that the log was kept against until this restore moved it to another one. */
    movedFrom: optional(nullable(natural())),
  }),
  /** Bytes of the disk behind the image, which are left alone. */
  beyondImage: optional(natural()),
}

const record = {
  /** Counted by the machine, from 1. */
  number: natural(),
  machine: shortText,
  /** When the restore began, ISO 8601, by the clock of the machine. */
  startedAt: time,
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
  /** Who cost this machine time, how often and by what; absent: nobody, or it is not told. `reason`: of what it was banned for last. */
  offenders: optional(
    list(
      object({
        id: shortText,
        name: shortText,
        wrong: natural(),
        violation: natural(),
        silent: natural(),
        slow: natural(),
        busy: natural(),
        reason: optional(shortText),
      }),
      MAX_RECEIPT_PEERS,
    ),
  ),
}

/**
 * The record of one restore, or of one that failed: what a machine signs (docs/PROTOCOL.md, receipts). What is optional came
 * later than format 1 did.
 */
export type Receipt = Shaped<typeof record>

/** What a receipt says, as it is passed on to programs. */
const isReceipt: Check<Receipt> = object(record)
const RECEIPT = { name: 'the receipt', shape: isReceipt, fault: 'PROTOCOL_VIOLATION' } as const
const isText = anyText(MAX_RECEIPT_BYTES)

/** Texts are cleaned and cut to what a receipt may hold. */
export function signReceipt(receipt: Receipt, key: SigningKey): SignedDocument {
  const signed = signDocument('receipt', canonicalize({ ...(clean(receipt) as Receipt), format: FORMAT }), key)
  if (readReceipt(signed) === undefined) throw new Error(`receipt ${receipt.number} is not valid: ${signed.text}`)
  return signed
}

/**
 * What a signed receipt says; undefined if signature or content is wrong. Whose receipt it may be is not looked at.
 * Errors: FORMAT_NEWER, of one whose signature is right.
 */
export function readReceipt(signed: SignedDocument): Receipt | undefined {
  const read = isText(signed.text) ? readSigned('receipt', signed, RECEIPT) : undefined
  if (read === undefined) return undefined
  const { format: _, ...receipt } = read as Receipt & { format?: number }
  return receipt
}

/** Control characters have no place on a terminal, and would not survive canonical JSON. */
function clean(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(/\p{C}/gu, ' ').slice(0, MAX_TEXT_CHARACTERS)
  if (Array.isArray(value)) return value.map(clean)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, clean(inner)]))
}
