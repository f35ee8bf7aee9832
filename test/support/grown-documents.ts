import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readJson } from '../../protocol/document.ts'
import { anyText, type Check, list, object } from '../../protocol/json-shape.ts'
import { isSignedDocument } from '../../protocol/operate-messages.ts'
import type { SignedDocument } from '../../protocol/signed-document.ts'

const PATH = join(import.meta.dirname, '../vectors/grown-documents.json')

/** A document as the version before wrote it, as one after may, and of a format that this version does not know. */
export interface GrownDocument<T> {
  readonly before: T
  readonly after: T
  readonly newer: T
}

const isAny: Check<unknown> = (_): _ is unknown => true
const isVectors = object({
  documents: list(object({ kind: anyText(100), before: isAny, after: isAny, newer: isAny }), 100),
})
const { documents } = readJson(PATH, isVectors, readFileSync(PATH))

/** All kinds that there are golden documents of. */
export const KINDS = documents.map(({ kind }) => kind)

export function grownText(kind: string): GrownDocument<string> {
  return grown(kind, (value): value is string => typeof value === 'string')
}

export function grownSigned(kind: string): GrownDocument<SignedDocument> {
  return grown(kind, isSignedDocument)
}

function grown<T>(kind: string, is: Check<T>): GrownDocument<T> {
  const found = documents.find((one) => one.kind === kind)
  if (found === undefined) throw new Error(`there is no golden ${kind}`)
  const { before, after, newer } = found
  if (is(before) && is(after) && is(newer)) return { before, after, newer }
  throw new Error(`the golden ${kind} is of another form`)
}
