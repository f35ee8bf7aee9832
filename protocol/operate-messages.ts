import {
  MAX_OPERATE_BYTES,
  MAX_RECEIPTS_PER_PAGE,
  MAX_ROLL_BYTES,
  MAX_TEXT_BYTES,
  MAX_WARNING_SECONDS,
} from './constants.ts'
import { ERROR_CODES, type ErrorCode, MeshError } from './errors.ts'
import {
  anyText,
  type Check,
  list,
  literal,
  natural,
  nullable,
  object,
  type Shaped,
  text,
  truth,
} from './json-shape.ts'
import type { Message } from './messages.ts'
import type { SignedDocument } from './signed-document.ts'

/** What operators ask of machines, as JSON in `operate` messages (docs/PROTOCOL.md, operate protocol). */

const isDocument: Check<SignedDocument> = object({
  by: text(MAX_TEXT_BYTES),
  text: anyText(MAX_ROLL_BYTES),
  signature: text(MAX_TEXT_BYTES),
})

const REQUESTS = {
  state: object({ op: literal('state') }),
  /** Receipts with numbers above `since`. */
  receipts: object({ op: literal('receipts'), since: natural() }),
  reset: object({
    op: literal('reset'),
    /** Id and epoch of the roll that it is part of; null and 0 for none. */
    roll: nullable(text(MAX_TEXT_BYTES)),
    epoch: natural(),
    /** How long whoever uses the machine is warned before. */
    warningSeconds: natural(MAX_WARNING_SECONDS),
    evenInUse: truth,
  }),
  'roll-get': object({ op: literal('roll-get'), group: text(MAX_TEXT_BYTES) }),
  'roll-put': object({ op: literal('roll-put'), document: isDocument }),
} as const

const REPLIES = {
  state: object({
    machine: text(MAX_TEXT_BYTES),
    /** Of the kernel; another one after each boot. */
    bootId: text(MAX_TEXT_BYTES),
    /** When the process that answers was started, ISO 8601. */
    startedAt: text(MAX_TEXT_BYTES),
    /** What the disk was last restored to; `whole`: that restore ended verified. */
    disk: nullable(
      object({ image: text(MAX_TEXT_BYTES), release: natural(), root: text(MAX_TEXT_BYTES), whole: truth }),
    ),
    /** Newest release of the machine's image that it knows. */
    newest: nullable(natural()),
    /** Release whose blocks are staged for the next reset. */
    staged: nullable(natural()),
    /** Whether somebody uses the machine. */
    inUse: truth,
    /** Whether a reset was granted that has not happened yet, and why the last one did not happen. */
    reset: object({ pending: truth, failure: nullable(text(MAX_TEXT_BYTES)) }),
    /** Number of the last receipt. */
    lastReceipt: nullable(natural()),
  }),
  /** In the order of their numbers; there are others if `more`. */
  receipts: object({
    receipts: list(object({ number: natural(), document: isDocument }), MAX_RECEIPTS_PER_PAGE),
    more: truth,
  }),
  reset: object({ granted: literal(true) }),
  'roll-get': object({ document: nullable(isDocument) }),
  /** `document` is what is stored now. */
  'roll-put': object({ accepted: truth, document: nullable(isDocument) }),
} as const

export type Operation = keyof typeof REQUESTS
type Of<C> = C extends Check<infer T> ? T : never
export type OperateRequest = { [Op in Operation]: Of<(typeof REQUESTS)[Op]> }[Operation]
export type RequestOf<Op extends Operation> = Of<(typeof REQUESTS)[Op]>
export type ReplyOf<Op extends Operation> = Of<(typeof REPLIES)[Op]>
export type MachineState = ReplyOf<'state'>
export type ReceiptPage = ReplyOf<'receipts'>

export type OperateMessage = Extract<Message, { type: 'operate' }>

export function encodeRequest(request: OperateRequest): OperateMessage {
  return encode(request)
}

/** Errors: PROTOCOL_VIOLATION for anything but a request. */
export function decodeRequest(message: Message): OperateRequest {
  const value = decode(message)
  const op = (value as { op?: unknown } | null)?.op
  if (typeof op === 'string' && Object.hasOwn(REQUESTS, op)) {
    const check: Check<OperateRequest> = REQUESTS[op as Operation] as Check<OperateRequest>
    if (check(value)) return value
  }
  throw new MeshError('PROTOCOL_VIOLATION', 'an operate message is no request')
}

const isFailure = object({ error: object({ code: anyText(MAX_TEXT_BYTES), message: anyText(MAX_TEXT_BYTES) }) })

export function encodeReply<Op extends Operation>(reply: ReplyOf<Op>): OperateMessage {
  return encode({ ok: reply })
}

export function encodeFailure(error: MeshError): OperateMessage {
  return encode({ error: { code: error.code, message: error.message.slice(0, MAX_TEXT_BYTES / 4) } })
}

/** The answer to a request. Errors: PROTOCOL_VIOLATION for anything but an answer to it, and those that the answer names. */
export function decodeReply<Op extends Operation>(op: Op, message: Message): ReplyOf<Op> {
  const value = decode(message)
  if (isFailure(value)) throw failureOf(value)
  const check = REPLIES[op] as unknown as Check<ReplyOf<Op>>
  if (object({ ok: check })(value)) return (value as { ok: ReplyOf<Op> }).ok
  throw new MeshError('PROTOCOL_VIOLATION', `an operate message is no answer to ${op}`)
}

function failureOf({
  error,
}: Shaped<{ error: Check<{ readonly code: string; readonly message: string }> }>): MeshError {
  const code: ErrorCode = ERROR_CODES.find((known) => known === error.code) ?? 'PROTOCOL_VIOLATION'
  // It is shown on a terminal.
  return new MeshError(code, error.message.replace(/\p{C}/gu, ' '))
}

function encode(value: object): OperateMessage {
  return { type: 'operate', payload: Buffer.from(JSON.stringify(value)) }
}

function decode(message: Message): unknown {
  if (message.type !== 'operate') {
    throw new MeshError('PROTOCOL_VIOLATION', `${message.type} was sent on the operate protocol`)
  }
  const bytes = message.payload.byteLength
  if (bytes > MAX_OPERATE_BYTES) throw new MeshError('PROTOCOL_VIOLATION', `an operate message has ${bytes} bytes`)
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(message.payload))
  } catch (cause) {
    throw new MeshError('PROTOCOL_VIOLATION', 'an operate message is no JSON', { cause })
  }
}
