import type { RangeSet } from '../../../protocol/ranges.ts'
import { LazyCounts } from '../lazy-counts.ts'

/** Which items the other machines of the site that fetch over the uplink have asked for there. */
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

  has(index: number): boolean {
    return this.#counts.get(index) > 0
  }

  isMachine(id: string): boolean {
    return this.#by.has(id)
  }

  begin(id: string): void {
    this.#by.set(id, new Map())
  }

  /** All that a machine has claimed is free. */
  end(id: string): void {
    for (const [index, at] of this.#by.get(id) ?? []) if (at !== undefined) this.#count(index, -1)
    this.#by.delete(id)
  }

  /** What a machine claims at `time`, and nothing else from then on. Nothing that others say is bounded by the image. */
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

  /** What was claimed before `time` and has still not come is for everybody again: no machine can keep it from the others. */
  expire(time: number): void {
    for (const claims of this.#by.values())
      for (const [index, at] of claims) {
        if (at === undefined || at >= time) continue
        claims.set(index, undefined)
        this.#count(index, -1)
      }
  }

  /** What a near machine has that cannot be asked for the moment is not fetched from far, as if it had claimed it. */
  suspend(id: string, held: RangeSet, time: number): void {
    this.begin(suspended(id))
    this.replace(suspended(id), held, time)
  }

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
