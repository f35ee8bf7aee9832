import { MAX_MEMBERS, MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import type { DocumentShape } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { literal, natural, object, optional, text, truth, which } from '../../protocol/json-shape.ts'
import { isMachineName, isPlaceName } from '../../protocol/names.ts'

/** What somebody has decided about a machine that asks to be enrolled, or about all that will ask. */
export interface Approval {
  readonly decision: 'approve' | 'refuse'
  /** When it was decided, and until when it holds; Unix ms. */
  readonly at: number
  readonly expiresAt: number
  /** What the machine is called; absent: as before, or as it would like. */
  readonly name?: string | undefined
  /** Where it stands; absent: in the site of the master, or where it stood before. */
  readonly site?: string | undefined
  readonly group?: string | undefined
  /** What its disk holds may be destroyed. */
  readonly wipe?: boolean | undefined
  /** Peer id of the member whose key goes out: whoever approved it was told so. */
  readonly replaces?: string | undefined
}

/** An approval as it is stored. */
export const APPROVAL: DocumentShape<Approval> = {
  name: 'an approval',
  shape: object({
    decision: literal('approve', 'refuse'),
    at: natural(),
    expiresAt: natural(),
    name: optional(which(text(MAX_TEXT_BYTES), isMachineName)),
    site: optional(isPlaceName),
    group: optional(isPlaceName),
    wipe: optional(truth),
    replaces: optional(isPlaceName),
  }),
  fault: 'STATE_CORRUPT',
}

/** Whom an approval is about: a key (`id:` and the peer id), a network card (`mac:` and its address), or everybody who asks. */
export type ApprovalKey = `id:${string}` | `mac:${string}` | 'all'

/** Keeps approvals: the state database, by {@link ApprovalKey}. */
export interface ApprovalShelf {
  iterator(): AsyncIterable<[string, Approval]>
  changeDurable(puts: readonly (readonly [string, Approval])[], dels: readonly string[]): Promise<void>
}

/** Approvals that one master keeps: a list of the whole site, and the decisions about as many machines. */
const MAX_APPROVALS = 2 * MAX_MEMBERS

/** The decisions about machines that ask to be enrolled, also about those that have not asked yet. */
export class ApprovalBook {
  readonly #shelf: ApprovalShelf
  readonly #now: () => number
  readonly #approvals = new Map<string, Approval>()

  private constructor(shelf: ApprovalShelf, now: () => number) {
    this.#shelf = shelf
    this.#now = now
  }

  /** Reads what was decided. Errors: STATE_CORRUPT, FORMAT_NEWER. */
  static async load(shelf: ApprovalShelf, { now = Date.now }: { now?: () => number } = {}): Promise<ApprovalBook> {
    const book = new ApprovalBook(shelf, now)
    for await (const [key, approval] of shelf.iterator()) book.#approvals.set(key, approval)
    await book.put([])
    return book
  }

  /** Decides, durably; what was decided about the same before is forgotten, and what has expired. Errors: SITE_FULL, DISK_FULL. */
  async put(
    decided: readonly (readonly [ApprovalKey, Approval])[],
    forget: readonly ApprovalKey[] = [],
  ): Promise<void> {
    const now = this.#now()
    const expired = [...this.#approvals].filter(([, { expiresAt }]) => expiresAt <= now).map(([key]) => key)
    const gone = [...expired, ...forget.filter((key) => this.#approvals.has(key))]
    const next = new Map([...this.#approvals].filter(([key]) => !gone.includes(key)))
    for (const [key, approval] of decided) next.set(key, approval)
    if (next.size > MAX_APPROVALS)
      throw new MeshError('SITE_FULL', `${next.size} approvals are more than ${MAX_APPROVALS}`)
    if (decided.length === 0 && gone.length === 0) return
    await this.#shelf.changeDurable(decided, gone)
    this.#approvals.clear()
    for (const [key, approval] of next) this.#approvals.set(key, approval)
  }

  /**
   * What was decided about a machine: about its key, else about one of its network cards, else about all.
   */
  find(id: string, mac: readonly string[]): { readonly key: ApprovalKey; readonly approval: Approval } | undefined {
    const now = this.#now()
    const keys: readonly ApprovalKey[] = [`id:${id}`, ...mac.map((one) => `mac:${one}` as const), 'all']
    for (const key of keys) {
      const approval = this.#approvals.get(key)
      if (approval !== undefined && approval.expiresAt > now) return { key, approval }
    }
    return undefined
  }

  /** Approvals that wait for a machine, in the order of their keys: by network card, or for all. */
  standing(): (readonly [string, Approval])[] {
    const now = this.#now()
    const waiting = [...this.#approvals].filter(([key, { expiresAt }]) => !key.startsWith('id:') && expiresAt > now)
    return waiting.sort(([a], [b]) => (a < b ? -1 : 1))
  }
}
