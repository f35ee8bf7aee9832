import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { MeshError } from '../../../protocol/errors.ts'
import {
  anyText,
  type Check,
  list,
  natural,
  nullable,
  object,
  optional,
  text,
  truth,
  which,
} from '../../../protocol/json-shape.ts'
import { callControl } from '../../control/control-client.ts'
import type { ControlMethod } from '../../control/control-server.ts'
import type { KeyRange, StoredValues } from '../../state/stored-values.ts'
import { MAX_VALUE_BYTES, VALUES_PAGE_BYTES } from './limits.ts'

const isValue = anyText(MAX_VALUE_BYTES)
const isKey = anyText(MAX_TEXT_BYTES)
const isPair: Check<readonly [string, string]> = (value): value is readonly [string, string] =>
  Array.isArray(value) && value.length === 2 && isKey(value[0]) && isValue(value[1])
/** Keys and values in their order; `more`: the page is full, and others may follow. */
const isPage = object({ entries: list(isPair, VALUES_PAGE_BYTES), more: truth })

const isOne = object({ shelf: text(MAX_TEXT_BYTES), key: isKey })
const isRange = object({
  shelf: text(MAX_TEXT_BYTES),
  gt: optional(isKey),
  lt: optional(isKey),
  reverse: optional(truth),
  limit: optional(which(natural(), (limit) => limit > 0)),
})

/** The methods of the control socket by which other commands read what this one has open: `value` and `values`. */
export function askedValues(own: StoredValues): Readonly<Record<string, ControlMethod>> {
  return {
    value: async (params) => {
      if (!isOne(params)) throw new MeshError('USAGE', 'value takes the name of a shelf and a key')
      return (await own.get(params.shelf, params.key)) ?? null
    },
    values: async (params) => {
      if (!isRange(params)) throw new MeshError('USAGE', 'values takes the name of a shelf and a range of keys')
      const { shelf, ...range } = params
      const entries: [string, string][] = []
      let bytes = 0
      for await (const [key, value] of own.entries(shelf, range)) {
        entries.push([key, value])
        bytes += Buffer.byteLength(key) + Buffer.byteLength(value)
        if (bytes >= VALUES_PAGE_BYTES) return { entries, more: true }
      }
      return { entries, more: false }
    },
  }
}

/** What the shelves of a state directory hold that another process has open: that process is asked. Errors: those of the control socket. */
export function heldValues(stateDir: string): StoredValues {
  return {
    get: async (shelf, key) => (await callControl(stateDir, 'value', nullable(isValue), { shelf, key })) ?? undefined,
    entries: (shelf, range) => pages(stateDir, shelf, range),
  }
}

async function* pages(stateDir: string, shelf: string, range: KeyRange): AsyncGenerator<[string, string]> {
  let left = range.limit
  let rest: KeyRange = range
  for (;;) {
    const limit = left === undefined ? {} : { limit: left }
    const { entries, more } = await callControl(stateDir, 'values', isPage, { shelf, ...rest, ...limit })
    for (const [key, value] of entries) yield [key, value]
    if (left !== undefined) left -= entries.length
    const last = entries.at(-1)?.[0]
    if (!more || last === undefined || left === 0) return
    rest = range.reverse === true ? { ...rest, lt: last } : { ...rest, gt: last }
  }
}
