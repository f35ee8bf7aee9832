import type { RangeSet } from '../../../protocol/ranges.ts'
import { LazyCounts } from '../lazy-counts.ts'

/** Items that the other machines of the site say they have asked for over the uplink: these are theirs to fetch. */
export class Claims {
  readonly #length: number
  /** When each item was first claimed; undefined once that no longer counts. */
  readonly #by = new Map<string, Map<number, number | undefined>>()
  readonly #counts: LazyCounts
  readonly #changed: (index: number) => void

  /** `changed`: an item is claimed now, or no longer is. */
  constructor(length: number, changed: (index: number) => void) {
    this.#length = length
    this.#counts = new LazyCounts(length)
    this.#changed = changed
  }

  /** Whether some machine has claimed an item. */
  has(index: number): boolean {
    return this.#counts.get(index) > 0
  }

  /** Whether a machine is known to fetch over the uplink. */
  isMachine(id: string): boolean {
    return this.#by.has(id)
  }

  /** A machine begins to fetch over the uplink, and has claimed nothing yet. */
  begin(id: string): void {
    this.#by.set(id, new Map())
  }

  /** A machine no longer fetches over the uplink: what it had claimed is free. */
  end(id: string): void {
    for (const [index, at] of this.#by.get(id) ?? []) if (at !== undefined) this.#count(index, -1)
    this.#by.delete(id)
  }

  /** At `time` a machine claims these items, and no others. Items beyond the image are ignored: others may say anything. */
  replace(id: string, claimed: RangeSet, time: number): void {
    const before = this.#by.get(id)
    if (before === undefined) return
    const now = new Map<number, number | undefined>()
    for (const [start, end] of claimed.runs())
      for (let i = start; i < Math.min(end, this.#length); i++) now.set(i, before.has(i) ? before.get(i) : time)
    this.#by.set(id, now)
    for (const index of now.keys()) if (!before.has(index)) this.#count(index, 1)
    for (const [index, at] of before) if (at !== undefined && !now.has(index)) this.#count(index, -1)
  }

  /** Frees items that were claimed before `time` and have not come: no machine can keep an item from the others for ever. */
  expire(time: number): void {
    for (const claims of this.#by.values())
      for (const [index, at] of claims) {
        if (at === undefined || at >= time) continue
        claims.set(index, undefined)
        this.#count(index, -1)
      }
  }

  /** A near machine cannot be asked for the moment: what it has counts as claimed, so that it is not fetched from far. */
  suspend(id: string, held: RangeSet, time: number): void {
    this.begin(suspended(id))
    this.replace(suspended(id), held, time)
  }

  /** The machine can be asked again, or is gone. */
  resume(id: string): void {
    this.end(suspended(id))
  }

  #count(index: number, by: 1 | -1): void {
    this.#counts.add(index, by)
    this.#changed(index)
  }
}

function suspended(id: string): string {
  return `${id} (suspended)`
}
