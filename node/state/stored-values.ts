import type { Level } from 'level'

/** Keys between which to look, in the order of their characters. */
export interface KeyRange {
  readonly gt?: string
  readonly lt?: string
  readonly reverse?: boolean
  readonly limit?: number
}

/** What the shelves of a state directory hold, as JSON: read from the own database, or from the process that has it open. */
export interface StoredValues {
  get(shelf: string, key: string): Promise<string | undefined>
  entries(shelf: string, range: KeyRange): AsyncIterable<[string, string]>
}

/** The values of a database that this process has open. */
export function ownValues(database: Level<string, string>): StoredValues {
  const part = (shelf: string) => database.sublevel<string, string>(shelf, { valueEncoding: 'utf8' })
  return {
    get: (shelf, key) => part(shelf).get(key),
    entries: (shelf, range) => part(shelf).iterator(range),
  }
}
