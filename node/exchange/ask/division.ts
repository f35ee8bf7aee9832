import type { Bitmap } from '../../../protocol/bitmap.ts'
import { IndexSet } from './index-set.ts'
import { PICK_SAMPLE } from './limits.ts'
import { Shares } from './shares.ts'

interface DivisionOptions {
  /** This machine's peer id. */
  readonly self: string
  readonly wanted: Bitmap
  /** Consecutive items that are one machine's share together; the same on all machines. */
  readonly groupItems: number
}

/** Items divided among machines that fetch them: this machine's share, and what of others' shares it would inherit. */
export class Division {
  /** Items that are divided; at first all that are wanted. */
  readonly items: IndexSet
  /** This machine's share. */
  readonly own: IndexSet
  /** Items that become this machine's if their owner leaves. */
  readonly inherited: IndexSet
  readonly #shares: Shares
  readonly #groupItems: number
  #cursor = 0

  constructor({ self, wanted, groupItems }: DivisionOptions) {
    this.items = IndexSet.of(wanted)
    this.own = new IndexSet(wanted.length)
    this.inherited = new IndexSet(wanted.length)
    this.#groupItems = groupItems
    const groups: number[] = []
    for (let i = wanted.nextSet(0); i !== -1; i = wanted.nextSet(i + 1)) {
      this.own.add(i)
      if (groups.at(-1) !== this.#groupOf(i)) groups.push(this.#groupOf(i))
    }
    this.#shares = new Shares(self, groups)
  }

  /** How many machines divide the items, this one included. */
  get members(): number {
    return this.#shares.members
  }

  /** Whether an item belongs to this machine's share, if it is divided. */
  isOwn(index: number): boolean {
    return this.#shares.isOwn(this.#groupOf(index))
  }

  /** Adds an item to those that are divided, or takes it out. */
  set(index: number, is: boolean): void {
    if (is ? this.items.add(index) : this.items.delete(index)) this.#divide(index)
  }

  /** A machine begins to fetch, and has its share. */
  join(id: string): void {
    this.#divideAnew(this.#shares.join(id))
  }

  /** A machine no longer fetches: its share goes to others. */
  leave(id: string): void {
    this.#divideAnew(this.#shares.leave(id))
  }

  /** Moves on to the next item of the own share that `may` be asked for. Returns it; -1: none of PICK_SAMPLE items may. */
  advance(may: (index: number) => boolean): number {
    let at = this.own.nextAround(this.#cursor)
    for (let i = 0; i < PICK_SAMPLE && at !== -1; i++) {
      if (may(at)) {
        this.#cursor = at
        return at
      }
      at = this.own.nextAround(at + 1)
    }
    // The next call looks at others of the share.
    if (at !== -1) this.#cursor = at
    return -1
  }

  #divideAnew(groups: readonly number[]): void {
    const { length } = this.items
    for (const group of groups) {
      const end = Math.min((group + 1) * this.#groupItems, length)
      for (let i = group * this.#groupItems; i < end; i++) this.#divide(i)
    }
  }

  /** Puts an item where it belongs: into the own share, among what may be inherited, or neither. */
  #divide(index: number): void {
    this.own.delete(index)
    this.inherited.delete(index)
    if (!this.items.has(index)) return
    const group = this.#groupOf(index)
    if (this.#shares.isOwn(group)) this.own.add(index)
    else if (this.#shares.isHeir(group)) this.inherited.add(index)
  }

  #groupOf(index: number): number {
    return Math.floor(index / this.#groupItems)
  }
}
