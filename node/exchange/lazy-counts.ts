/** A small count for each item; takes memory only once something is counted. */
export class LazyCounts {
  readonly #length: number
  #counts: Uint16Array | undefined

  constructor(length: number) {
    this.#length = length
  }

  get(index: number): number {
    return this.#counts?.[index] ?? 0
  }

  /** Returns the new count. */
  add(index: number, by: 1 | -1): number {
    this.#counts ??= new Uint16Array(this.#length)
    this.#counts[index]! += by
    return this.#counts[index]!
  }
}
