import { type DocumentShape, readDocument } from '../../protocol/document.ts'
import type { Check } from '../../protocol/json-shape.ts'

/** What a file of the state directory is to whoever reads it; `path` names it in messages. */
export function storedDocument<T>(path: string, shape: Check<T>): DocumentShape<T> {
  return { name: path, shape, fault: 'STATE_CORRUPT' }
}

/** What a file of the state directory says. Errors: STATE_CORRUPT naming it, FORMAT_NEWER. */
export function readStored<T>(path: string, shape: Check<T>, json: string | Uint8Array): T {
  return readDocument(storedDocument(path, shape), json)
}
