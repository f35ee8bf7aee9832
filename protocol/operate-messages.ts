import {
  MAX_ADDRESSES_PER_PEER,
  MAX_OPERATE_BYTES,
  MAX_RECEIPTS_PER_PAGE,
  MAX_ROLL_BYTES,
  MAX_TEXT_BYTES,
  MAX_WARNING_SECONDS,
} from './constants.ts'
import { type DocumentShape, readDocument } from './document.ts'
import { ERROR_CODES, type ErrorCode, MeshError } from './errors.ts'
import {
  anyText,
  type Check,
  either,
  isRecord,
  list,
  literal,
  natural,
  nullable,
  object,
  optional,
  type Shaped,
  text,
  truth,
} from './json-shape.ts'
import type { Message } from './messages.ts'
import type { SignedDocument } from './signed-document.ts'

/** What operators ask of machines, as JSON in `operate` messages (docs/PROTOCOL.md, operate protocol). */

/** A signed document as it travels; what its text says is looked at apart. */
export const isSignedDocument: Check<SignedDocument> = object({
  by: text(MAX_TEXT_BYTES),
  text: anyText(MAX_ROLL_BYTES),
  signature: text(MAX_TEXT_BYTES),
})

/** A receipt as its machine signed it, with its number beside, by which receipts are asked for and kept. */
export type SignedReceipt = Of<typeof isSignedReceipt>
const isSignedReceipt = object({ number: natural(), document: isSignedDocument })

const REQUESTS = {
  state: object({ op: literal('state') }),
  /** Receipts with numbers above `since`. */
  receipts: object({ op: literal('receipts'), since: natural() }),
  /** The newest receipt of the machine that asks. Any member may ask. */
  seen: object({ op: literal('seen') }),
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
  'roll-put': object({ op: literal('roll-put'), document: isSignedDocument }),
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
    /** What later versions tell: of the program, path of the disk, addresses it listens at, and how far the coming release is staged. */
    version: optional(text(MAX_TEXT_BYTES)),
    device: optional(text(MAX_TEXT_BYTES)),
    addresses: optional(list(text(MAX_TEXT_BYTES), MAX_ADDRESSES_PER_PEER)),
    staging: optional(object({ release: natural(), wanted: natural(), staged: natural() })),
  }),
  /** In the order of their numbers; there are others if `more`. */
  receipts: object({
    receipts: list(isSignedReceipt, MAX_RECEIPTS_PER_PAGE),
    more: truth,
  }),
  /** Null if none is kept there. */
  seen: object({ number: nullable(natural()) }),
  reset: object({ granted: literal(true) }),
  'roll-get': object({ document: nullable(isSignedDocument) }),
  /** `document` is what is stored now. */
  'roll-put': object({ accepted: truth, document: nullable(isSignedDocument) }),
} as const

const isRequest: Check<OperateRequest> = (value): value is OperateRequest => {
  const op = isRecord(value) ? value.op : undefined
  return typeof op === 'string' && Object.hasOwn(REQUESTS, op) && REQUESTS[op as Operation](value)
}
const REQUEST: DocumentShape<OperateRequest> = {
  name: 'the operate request',
  shape: isRequest,
  fault: 'PROTOCOL_VIOLATION',
}

/** The name of what an operator asks a machine for. */
export type Operation = keyof typeof REQUESTS
type Of<C> = C extends Check<infer T> ? T : never
/** Any request of the operate protocol. */
export type OperateRequest = { [Op in Operation]: Of<(typeof REQUESTS)[Op]> }[Operation]
/** The request of one operation. */
export type RequestOf<Op extends Operation> = Of<(typeof REQUESTS)[Op]>
/** The reply to one operation. */
export type ReplyOf<Op extends Operation> = Of<(typeof REPLIES)[Op]>
/** What a machine says of itself to an operator. */
export type MachineState = ReplyOf<'state'>

/** The message that carries a request or an answer, as JSON. */
export type OperateMessage = Extract<Message, { type: 'operate' }>

/** The message of a request. */
export function encodeRequest(request: OperateRequest): OperateMessage {
  return encode(request)
}

/** Errors: PROTOCOL_VIOLATION for anything but a request, FORMAT_NEWER. */
export function decodeRequest(message: Message): OperateRequest {
  return readDocument(REQUEST, payloadOf(message))
}

const isFailure = object({ error: object({ code: anyText(MAX_TEXT_BYTES), message: anyText(MAX_TEXT_BYTES) }) })

/** The message of a reply: `{"ok":…}`. */
export function encodeReply<Op extends Operation>(reply: ReplyOf<Op>): OperateMessage {
  return encode({ ok: reply })
}

/** The message of a refusal: `{"error":{"code","message"}}`, the message cut to a quarter of MAX_TEXT_BYTES. */
export function encodeFailure(error: MeshError): OperateMessage {
  return encode({ error: { code: error.code, message: error.message.slice(0, MAX_TEXT_BYTES / 4) } })
}

/**
 * The answer to a request. Errors: PROTOCOL_VIOLATION for anything but an answer to it, FORMAT_NEWER, and those that the
 * answer names.
 */
export function decodeReply<Op extends Operation>(op: Op, message: Message): ReplyOf<Op> {
  const shape = object({ ok: replyShape(op) })
  const name = `the answer to ${op}`
  const reply = readDocument({ name, shape: either(isFailure, shape), fault: 'PROTOCOL_VIOLATION' }, payloadOf(message))
  if (isFailure(reply)) throw failureOf(reply)
  return reply.ok
}

/** What an answer to a request must be. */
export function replyShape<Op extends Operation>(op: Op): Check<ReplyOf<Op>> {
  return REPLIES[op] as unknown as Check<ReplyOf<Op>>
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

function payloadOf(message: Message): Uint8Array {
  if (message.type !== 'operate') {
    throw new MeshError('PROTOCOL_VIOLATION', `${message.type} was sent on the operate protocol`)
  }
  const bytes = message.payload.byteLength
  if (bytes > MAX_OPERATE_BYTES) throw new MeshError('PROTOCOL_VIOLATION', `an operate message has ${bytes} bytes`)
  return message.payload
}
