import type { DocumentShape } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { object, time } from '../../protocol/json-shape.ts'
import { formatTime } from '../../protocol/local-time.ts'
import { isPlaceName } from '../../protocol/names.ts'
import type { TrustStore } from './trust-store.ts'

/** What the master remembers of a key that was taken out of the site. */
export interface Removal {
  /** The last name of its machine. */
  readonly name: string
  /** ISO 8601. */
  readonly at: string
}

/** A removal as it is stored. */
export const REMOVAL: DocumentShape<Removal> = {
  name: 'a removal',
  shape: object({ name: isPlaceName, at: time }),
  fault: 'STATE_CORRUPT',
}

/** Keeps removals: the state database, by peer id. */
interface RemovalShelf {
  iterator(): AsyncIterable<[string, Removal]>
  changeDurable(puts: readonly (readonly [string, Removal])[], dels: readonly string[]): Promise<void>
}

/**
 * The keys that were taken out of the site, for as long as the master lives: the signed list has room for the last ones only. No
 * token and no approval lets such a key in again.
 */
export class RemovalBook {
  readonly #shelf: RemovalShelf
  readonly #trust: Pick<TrustStore, 'view'>
  readonly #kept = new Map<string, Removal>()

  private constructor(shelf: RemovalShelf, trust: Pick<TrustStore, 'view'>) {
    this.#shelf = shelf
    this.#trust = trust
  }

  /** Reads what is kept, and adds what the signed list says. Errors: STATE_CORRUPT, FORMAT_NEWER, DISK_FULL. */
  static async load(shelf: RemovalShelf, trust: Pick<TrustStore, 'view'>): Promise<RemovalBook> {
    const book = new RemovalBook(shelf, trust)
    for await (const [id, removal] of shelf.iterator()) book.#kept.set(id, removal)
    await book.note()
    return book
  }

  /** Keeps, durably, what the signed list says and what is not kept yet. Errors: DISK_FULL. */
  async note(): Promise<void> {
    const fresh = this.#trust.view().removed.filter(({ id }) => !this.#kept.has(id))
    if (fresh.length === 0) return
    const puts = fresh.map(({ id, name, at }) => [id, { name, at }] as const)
    await this.#shelf.changeDurable(puts, [])
    for (const [id, removal] of puts) this.#kept.set(id, removal)
  }

  /** Refuses a key that was taken out of the site. Errors: MEMBER_REMOVED. */
  refuse(id: string): void {
    const removal = this.#trust.view().removed.find((one) => one.id === id) ?? this.#kept.get(id)
    if (removal === undefined) return
    const { name, at } = removal
    throw new MeshError(
      'MEMBER_REMOVED',
      `the key of this machine, ${name}, was removed from the site at ${formatTime(at)}`,
    )
  }
}
