import assert from 'node:assert/strict'
import type { Level } from 'level'
import { type DocumentShape, readDocument } from '../../protocol/document.ts'
import { isMeshError, type MeshError } from '../../protocol/errors.ts'
import type { KeyRange, StoredValues } from './stored-values.ts'

/** A named part of the state database: documents of one kind, as JSON, each checked when it is read. */
export class Shelf<T> {
  readonly #values: StoredValues
  readonly #database: Level<string, string> | undefined
  readonly #document: DocumentShape<T>
  readonly #name: string
  readonly #failed: (error: unknown) => unknown
  readonly #refused: ((fault: MeshError) => void) | undefined

  /**
   * `database`: where values are put; undefined if they are only read. `failed`: makes a fault of the world of what the database throws. `refused`: the
   * documents only save work, so one that cannot be read is done without, and told of here.
   */
  constructor(
    values: StoredValues,
    database: Level<string, string> | undefined,
    name: string,
    document: DocumentShape<T>,
    failed: (error: unknown) => unknown,
    refused?: (fault: MeshError) => void,
  ) {
    this.#values = values
    this.#database = database
    this.#name = name
    this.#document = document
    this.#failed = failed
    this.#refused = refused
  }

  /** Errors: FORMAT_NEWER, and the document's `fault`; none of documents that only save work. */
  async get(key: string): Promise<T | undefined> {
    const json = await this.#values.get(this.#name, key)
    return json === undefined ? undefined : await this.#read(key, json)
  }

  /** Errors: as {@link get}. */
  async *iterator(range: KeyRange = {}): AsyncGenerator<[string, T]> {
    for await (const [key, json] of this.#values.entries(this.#name, range)) {
      const value = await this.#read(key, json)
      if (value !== undefined) yield [key, value]
    }
  }

  keys(range: KeyRange = {}): Promise<string[]> {
    return this.#part().keys(range).all()
  }

  /** Stores a value, soon. */
  put(key: string, value: T): Promise<void> {
    return this.#part().put(key, JSON.stringify(value))
  }

  del(key: string): Promise<void> {
    return this.#part().del(key)
  }

  /** Stores a value so that it is on stable storage when this resolves (LevelDB alone does not fsync). Errors: DISK_FULL. */
  putDurable(key: string, value: T): Promise<void> {
    return this.changeDurable([[key, value]], [])
  }

  /** Stores and removes values, all or nothing, as {@link putDurable}. */
  async changeDurable(puts: readonly (readonly [string, T])[], dels: readonly string[]): Promise<void> {
    const sublevel = this.#part()
    const changes = [
      ...puts.map(([key, value]) => ({ type: 'put', key, value: JSON.stringify(value), sublevel }) as const),
      ...dels.map((key) => ({ type: 'del', key, sublevel }) as const),
    ]
    await this.#own()
      .batch(changes, { sync: true })
      .catch((error: unknown) => {
        throw this.#failed(error)
      })
  }

  /** What is damaged, and only saves work, is taken out; what a later version wrote stays for that one. */
  async #read(key: string, json: string): Promise<T | undefined> {
    try {
      return readDocument(this.#document, json)
    } catch (error) {
      if (this.#refused === undefined || !isMeshError(error)) throw error
      this.#refused(error)
      if (this.#database !== undefined && error.code === this.#document.fault) await this.del(key)
      return undefined
    }
  }

  #part() {
    return this.#own().sublevel<string, string>(this.#name, { valueEncoding: 'utf8' })
  }

  #own(): Level<string, string> {
    assert(this.#database !== undefined, `the shelf ${this.#name} is only read here`)
    return this.#database
  }
}
