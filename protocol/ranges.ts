import assert from 'node:assert/strict'

/** A half-open run `[start, end)` of natural numbers. */
export type Run = readonly [start: number, end: number]

/**
 * An immutable set of natural numbers, kept as half-open runs that are sorted and lie apart. Set operations take time
 * linear in the number of runs, and `has` takes logarithmic time: a million neighbouring blocks cost one run.
 */
export class RangeSet {
  static readonly empty = new RangeSet([])

  /** start0, end0, start1, end1, … */
  readonly #bounds: readonly number[]
  #count: number | undefined

  private constructor(bounds: readonly number[]) {
    this.#bounds = bounds
  }

  static of(start: number, end: number): RangeSet {
    return RangeSet.from([[start, end]])
  }

  /** Makes a set of runs in any order. Runs may overlap or be empty. */
  static from(runs: Iterable<Run>): RangeSet {
    const sorted: Run[] = []
    let ordered = true
    for (const [start, end] of runs) {
      assert(
        Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end,
        `run [${start}, ${end})`,
      )
      if (start === end) continue
      ordered &&= sorted.length === 0 || sorted.at(-1)![0] <= start
      sorted.push([start, end])
    }
    if (!ordered) sorted.sort((a, b) => a[0] - b[0])
    const bounds: number[] = []
    for (const [start, end] of sorted) {
      const last = bounds.length - 1
      if (last >= 0 && start <= bounds[last]!) bounds[last] = Math.max(bounds[last]!, end)
      else bounds.push(start, end)
    }
    return bounds.length === 0 ? RangeSet.empty : new RangeSet(bounds)
  }

  *runs(): Generator<Run> {
    for (let i = 0; i < this.#bounds.length; i += 2) yield [this.#bounds[i]!, this.#bounds[i + 1]!]
  }

  *values(): Generator<number> {
    for (const [start, end] of this.runs()) for (let n = start; n < end; n++) yield n
  }

  get runCount(): number {
    return this.#bounds.length / 2
  }

  /** How many numbers are in the set. */
  get count(): number {
    if (this.#count === undefined) {
      let count = 0
      for (const [start, end] of this.runs()) count += end - start
      this.#count = count
    }
    return this.#count
  }

  get isEmpty(): boolean {
    return this.#bounds.length === 0
  }

  /** One past the greatest member; 0 for the empty set. */
  get end(): number {
    return this.#bounds.at(-1) ?? 0
  }

  has(n: number): boolean {
    // An odd number of bounds at or below n means that a run is open there.
    let low = 0
    let high = this.#bounds.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#bounds[middle]! <= n) low = middle + 1
      else high = middle
    }
    return low % 2 === 1
  }

  union(other: RangeSet): RangeSet {
    if (other.isEmpty) return this
    return this.isEmpty ? other : this.#combine(other, (a, b) => a || b)
  }

  subtract(other: RangeSet): RangeSet {
    return other.isEmpty ? this : this.#combine(other, (a, b) => a && !b)
  }

  intersect(other: RangeSet): RangeSet {
    return this.#combine(other, (a, b) => a && b)
  }

  equals(other: RangeSet): boolean {
    const [a, b] = [this.#bounds, other.#bounds]
    return a.length === b.length && a.every((bound, i) => bound === b[i])
  }

  /** Sweeps over the bounds of both sets and keeps a bound where `keep` of the two memberships changes. */
  #combine(other: RangeSet, keep: (a: boolean, b: boolean) => boolean): RangeSet {
    const [a, b] = [this.#bounds, other.#bounds]
    const bounds: number[] = []
    let inside = false
    for (let i = 0, j = 0; i < a.length || j < b.length; ) {
      const at = Math.min(a[i] ?? Number.POSITIVE_INFINITY, b[j] ?? Number.POSITIVE_INFINITY)
      if (a[i] === at) i++
      if (b[j] === at) j++
      const now = keep(i % 2 === 1, j % 2 === 1)
      if (now !== inside) bounds.push(at)
      inside = now
    }
    return bounds.length === 0 ? RangeSet.empty : new RangeSet(bounds)
  }
}
