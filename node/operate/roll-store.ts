import { MeshError } from '../../protocol/errors.ts'
import { isNewerRoll, type RollDocument, readRoll } from '../../protocol/roll-document.ts'
import type { SignedDocument } from '../../protocol/signed-document.ts'

/** Where roll documents are kept, by group; `put` is durable when it resolves. */
interface RollShelf {
  get(group: string): Promise<SignedDocument | undefined>
  put(group: string, document: SignedDocument): Promise<void>
}

/** Where documents are kept, and whose are taken. */
interface RollStoreOptions {
  readonly shelf: RollShelf
  /** Whether a peer is the master or an operator at this moment. */
  readonly mayOperate: (peerId: string) => boolean
  /** Whether some member is in the group: only so many documents are kept. */
  readonly isGroup: (group: string) => boolean
}

/** A document as it was signed, and what it says. */
interface StoredRoll {
  readonly signed: SignedDocument
  readonly roll: RollDocument
}

/** Keeps one document for each group, signed by an operator, that only a newer one replaces. */
export class RollStore {
  readonly #options: RollStoreOptions
  /** One after the other: of two that come at once the newer one must stay. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: RollStoreOptions) {
    this.#options = options
  }

  /** What is stored; not if whoever signed it is an operator no more, so that nobody else is held up by it. */
  async get(group: string): Promise<StoredRoll | undefined> {
    const signed = await this.#options.shelf.get(group)
    return signed === undefined ? undefined : this.#valid(signed)
  }

  /**
   * Stores a document if it is newer than the stored one, or the same. Returns whether it did, and what is stored now.
   * Errors: NOT_AN_OPERATOR if no operator has signed it, PROTOCOL_VIOLATION if it is none, or of no group.
   */
  put(signed: SignedDocument): Promise<{ accepted: boolean; document: SignedDocument }> {
    const turn = this.#last.then(() => this.#put(signed))
    this.#last = turn.catch(() => undefined)
    return turn
  }

  /** Refuses what a stored document has overtaken. Errors: ROLL_SUPERSEDED. */
  async allows(group: string, roll: string, epoch: number): Promise<void> {
    const stored = (await this.get(group))?.roll
    if (stored === undefined || (stored.roll === roll && stored.epoch <= epoch)) return
    const why = `group ${group} is at roll ${stored.roll}, epoch ${stored.epoch}, not at ${roll}, epoch ${epoch}`
    throw new MeshError('ROLL_SUPERSEDED', why)
  }

  async #put(signed: SignedDocument): Promise<{ accepted: boolean; document: SignedDocument }> {
    const roll = readRoll(signed)
    if (roll === undefined || !this.#options.isGroup(roll.group))
      throw new MeshError('PROTOCOL_VIOLATION', 'a roll document is not valid')
    if (!this.#options.mayOperate(signed.by))
      throw new MeshError('NOT_AN_OPERATOR', 'the roll document was signed by no operator of this site')
    const stored = await this.get(roll.group)
    if (stored !== undefined && stored.signed.text === signed.text) return { accepted: true, document: stored.signed }
    if (stored !== undefined && !isNewerRoll(roll, stored.roll)) return { accepted: false, document: stored.signed }
    await this.#options.shelf.put(roll.group, signed)
    return { accepted: true, document: signed }
  }

  #valid(signed: SignedDocument): StoredRoll | undefined {
    const roll = this.#options.mayOperate(signed.by) ? readRoll(signed) : undefined
    return roll === undefined ? undefined : { signed, roll }
  }
}
