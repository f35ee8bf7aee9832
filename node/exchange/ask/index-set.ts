import assert from 'node:assert/strict'
import type { Bitmap } from '../../../protocol/bitmap.ts'

/**
 * A set of whole numbers below `length` that finds its next member in a few steps however few there are: over the words of
 * bits stand words that tell which of those are not empty, and so on up to a single one (2 million numbers: five levels).
 */
export class IndexSet {
  readonly length: number
  /** Level 0 holds the members; bit i of level n + 1 says that word i of level n is not zero. */
  readonly #levels: readonly Uint32Array[]
  #size = 0

  constructor(length: number) {
    assert(Number.isSafeInteger(length) && length >= 0)
    this.length = length
    const levels = [new Uint32Array(Math.max(1, Math.ceil(length / 32)))]
    while (levels.at(-1)!.length > 1) levels.push(new Uint32Array(Math.ceil(levels.at(-1)!.length / 32)))
    this.#levels = levels
  }

  static of(bitmap: Bitmap): IndexSet {
    const set = new IndexSet(bitmap.length)
    for (let i = bitmap.nextSet(0); i !== -1; i = bitmap.nextSet(i + 1)) set.add(i)
    return set
  }

  get size(): number {
    return this.#size
  }

  has(index: number): boolean {
    return (this.#levels[0]![index >>> 5]! & (1 << (index & 31))) !== 0
  }

  /** False if it was in already. */
  add(index: number): boolean {
    assert(index >= 0 && index < this.length)
    if (this.has(index)) return false
    this.#size++
    for (let at = index, n = 0; n < this.#levels.length; at >>>= 5, n++) {
      const words = this.#levels[n]!
      const before = words[at >>> 5]!
      words[at >>> 5] = before | (1 << (at & 31))
      if (before !== 0) break
    }
    return true
  }

  /** False if it was not in. */
  delete(index: number): boolean {
    assert(index >= 0 && index < this.length)
    if (!this.has(index)) return false
    this.#size--
    for (let at = index, n = 0; n < this.#levels.length; at >>>= 5, n++) {
      const words = this.#levels[n]!
      words[at >>> 5]! &= ~(1 << (at & 31))
      if (words[at >>> 5] !== 0) break
    }
    return true
  }

  /** The first member at or after `from`, or -1. */
  next(from: number): number {
    let at = from
    for (let n = 0; n < this.#levels.length; n++) {
      const word = at >>> 5
      if (word >= this.#levels[n]!.length) return -1
      const left = (this.#levels[n]![word]! & (0xffffffff << (at & 31))) >>> 0
      if (left !== 0) return this.#descend(n, word * 32 + lowestBit(left))
      at = word + 1
    }
    return -1
  }

  /** The first member at or after `from`, going round at the end; -1 only if there is none. */
  nextAround(from: number): number {
    const after = this.next(from)
    return after !== -1 || from === 0 ? after : this.next(0)
  }

  /** The members in ascending order, as they are when each is asked for. */
  *values(): Generator<number> {
    for (let index = this.next(0); index !== -1; index = this.next(index + 1)) yield index
  }

  #descend(level: number, at: number): number {
    for (let n = level - 1; n >= 0; n--) at = at * 32 + lowestBit(this.#levels[n]![at]!)
    return at
  }
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word)
}
