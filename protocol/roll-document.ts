import { MAX_ROLL_BYTES, MAX_TEXT_BYTES } from './constants.ts'
import type { DocumentShape } from './document.ts'
import { anyText, natural, object, text } from './json-shape.ts'
import { readSigned, type SignedDocument, type SigningKey, signDocument } from './signed-document.ts'

/** The one document of a group of machines that says what its roll is at; what `body` means is the operators' business. */
export interface RollDocument {
  readonly group: string
  /** Id of the roll. */
  readonly roll: string
  /** Grows when another operator takes over, or another roll begins. */
  readonly epoch: number
  /** Grows with each change within an epoch. */
  readonly sequence: number
  /** Any JSON. */
  readonly body: unknown
}

const anything = (value: unknown): value is unknown => value !== undefined
const ROLL: DocumentShape<RollDocument> = {
  name: 'the roll document',
  shape: object({
    group: text(MAX_TEXT_BYTES),
    roll: text(MAX_TEXT_BYTES),
    epoch: natural(),
    sequence: natural(),
    body: anything,
  }),
  fault: 'PROTOCOL_VIOLATION',
}
const isText = anyText(MAX_ROLL_BYTES)

/** Signs a roll document of at most MAX_ROLL_BYTES. */
export function signRoll(document: RollDocument, key: SigningKey): SignedDocument {
  const { group, roll, epoch, sequence, body } = document
  const signed = signDocument('roll', JSON.stringify({ group, roll, epoch, sequence, body }), key)
  if (readRoll(signed) === undefined)
    throw new Error(`a roll document of ${signed.text.length} characters is not valid`)
  return signed
}

/**
 * What a signed roll document says; undefined if the signature or the content is wrong. Whether `by` may operate is not
 * looked at. Errors: FORMAT_NEWER, of one whose signature is right.
 */
export function readRoll(signed: SignedDocument): RollDocument | undefined {
  return isText(signed.text) ? readSigned('roll', signed, ROLL) : undefined
}

/** Whether a document replaces another one: by its epoch, then by its sequence. */
export function isNewerRoll(a: RollDocument, b: RollDocument): boolean {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.sequence > b.sequence)
}
