import { BinaryReader } from '@bufbuild/protobuf/wire'
import { type ErrorCode, isMeshError, MeshError } from './errors.ts'
import { type Check, isRecord, natural, which, wrongPart } from './json-shape.ts'

/**
 * How every document is read that a machine gets or keeps, in one place (docs/PROTOCOL.md, "How documents grow"): keys that
 * are known are checked, others are skipped, and only a higher `format` is refused. The text itself is kept by whoever reads
 * it: signatures are over its bytes, and what is stored or passed on is that same text.
 */
export interface DocumentShape<T> {
  /** Names it in messages, with an article: `the manifest`. */
  readonly name: string
  /** The highest format that this version reads. @default 1 */
  readonly format?: number
  /** All that is known of it, `format` apart. */
  readonly shape: Check<T>
  /** Code of the error if it is none, or a known key has a wrong value. */
  readonly fault: ErrorCode
}

/** Number of the field that has the format, in documents that are protobuf messages. */
const FORMAT_FIELD = 15
const UTF8 = new TextDecoder('utf-8', { fatal: true })
const isFormat = which(natural(), (format) => format > 0)

/** A document from its JSON (UTF-8). Errors: FORMAT_NEWER, and the document's `fault`. */
export function readDocument<T>(document: DocumentShape<T>, json: string | Uint8Array): T {
  return faulting(document, () => checkFields(document, parsed(document.name, json)))
}

/** As {@link readDocument}, of JSON that is parsed already. */
export function checkDocument<T>(document: DocumentShape<T>, value: unknown): T {
  return faulting(document, () => checkFields(document, value))
}

function checkFields<T>({ name, format, shape }: DocumentShape<T>, value: unknown): T {
  if (isRecord(value) && value.format !== undefined) {
    if (!isFormat(value.format)) throw new Error(`${name} is damaged: its format is no number`)
    assertFormat(name, value.format, format)
  }
  return checked(name, shape, value)
}

function faulting<T>({ fault }: DocumentShape<T>, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof Error) || isMeshError(cause)) throw cause
    throw new MeshError(fault, cause.message, { cause })
  }
}

/** What another program says as JSON, which knows nothing of our formats. Throws an Error that says what is wrong with it. */
export function readJson<T>(name: string, shape: Check<T>, json: string | Uint8Array): T {
  return checked(name, shape, parsed(name, json))
}

function parsed(name: string, json: string | Uint8Array): unknown {
  try {
    return JSON.parse(typeof json === 'string' ? json : UTF8.decode(json))
  } catch (cause) {
    throw new Error(`${name} is damaged: it is no JSON`, { cause })
  }
}

function checked<T>(name: string, shape: Check<T>, value: unknown): T {
  if (shape(value)) return value
  const part = wrongPart(shape, value)
  throw new Error(`${name} is damaged: ${part === '' ? 'it is something else' : `${part} is missing or wrong`}`)
}

/** Refuses a format that only a later version knows. Errors: FORMAT_NEWER. */
export function assertFormat(name: string, found: number, known = 1): void {
  if (found > known) throw new MeshError('FORMAT_NEWER', newerFormat(name, found, known))
}

/** Says that something was written by a later version. */
export function newerFormat(name: string, found: number, known = 1): string {
  return `${name} was written by a newer version of mesh: format ${found}, this version reads up to ${known}; update mesh on this machine`
}

/** The format of a document that is a protobuf message: its field 15, or 1. Errors: those of the protobuf library. */
export function formatOfMessage(bytes: Uint8Array): number {
  const reader = new BinaryReader(bytes)
  let format = 1
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === FORMAT_FIELD) format = Number(reader.uint64())
    else reader.skip(wireType, field)
  }
  return format
}
