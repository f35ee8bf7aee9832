import assert from 'node:assert/strict'
import { RangeSet } from './ranges.ts'

/** A fixed-length set of bits: one bit per block or granule, 128 KiB for a million. */
export class Bitmap {
  readonly length: number
  readonly #words: Uint32Array
  #count = 0

  constructor(length: number) {
    assert(Number.isSafeInteger(length) && length >= 0)
    this.length = length
    this.#words = new Uint32Array(Math.ceil(length / 32))
  }

  static fromRanges(length: number, ranges: RangeSet): Bitmap {
    const bitmap = new Bitmap(length)
    for (const [start, end] of ranges.runs()) bitmap.setRange(start, end)
    return bitmap
  }

  copy(): Bitmap {
    const copy = new Bitmap(this.length)
    copy.#words.set(this.#words)
    copy.#count = this.#count
    return copy
  }

  /** How many bits are set. */
  get count(): number {
    return this.#count
  }

  has(i: number): boolean {
    return i >= 0 && i < this.length && (this.#words[i >>> 5]! & (1 << (i & 31))) !== 0
  }

  /** Sets a bit; false if it was set already. */
  set(i: number): boolean {
    assert(i >= 0 && i < this.length, `bit ${i} of ${this.length}`)
    if (this.has(i)) return false
    this.#words[i >>> 5]! |= 1 << (i & 31)
    this.#count++
    return true
  }

  /** Clears a bit; false if it was clear already. */
  clear(i: number): boolean {
    assert(i >= 0 && i < this.length, `bit ${i} of ${this.length}`)
    if (!this.has(i)) return false
    this.#words[i >>> 5]! &= ~(1 << (i & 31))
    this.#count--
    return true
  }

  setRange(start: number, end: number): void {
    this.#fill(start, end, true)
  }

  clearRange(start: number, end: number): void {
    this.#fill(start, end, false)
  }

  /** The first set bit at or after `from`, or -1. */
  nextSet(from: number): number {
    return this.#next(from, 0)
  }

  /** The first clear bit at or after `from`, or -1. */
  nextClear(from: number): number {
    return this.#next(from, 0xffffffff)
  }

  /** The first bit at or after `from` that is set here and in `other` (of the same length), or -1. */
  nextSetInBoth(other: Bitmap, from: number): number {
    assert(other.length === this.length)
    if (from >= this.length) return -1
    let w = from >>> 5
    let word = (this.#words[w]! & other.#words[w]! & (0xffffffff << (from & 31))) >>> 0
    while (word === 0) {
      if (++w >= this.#words.length) return -1
      word = (this.#words[w]! & other.#words[w]!) >>> 0
    }
    return w * 32 + 31 - Math.clz32(word & -word)
  }

  /** Whether every bit of [start, end) is set. */
  hasRange(start: number, end: number): boolean {
    for (let i = start; i < end; ) {
      const whole = (i & 31) === 0 && end - i >= 32
      if (whole ? this.#words[i >>> 5] !== 0xffffffff : !this.has(i)) return false
      i += whole ? 32 : 1
    }
    return true
  }

  /**
   * Packs the bits from `first` on into bytes, least significant bit first. `first` is a multiple of 32 and lies
   * inside. Bytes behind the last bit become zeros.
   */
  store(first: number, into: Uint8Array): void {
    const bytes = this.#bytesFrom(first)
    into.set(bytes.subarray(0, into.byteLength))
    into.fill(0, bytes.byteLength)
  }

  /** The inverse of {@link store}; bits behind the last one are dropped. */
  load(first: number, from: Uint8Array): void {
    const bytes = this.#bytesFrom(first)
    const end = Math.min(this.#words.length, Math.ceil((first + from.byteLength * 8) / 32))
    const before = this.#countWords(first >>> 5, end)
    bytes.set(from.byteLength > bytes.byteLength ? from.subarray(0, bytes.byteLength) : from)
    const over = this.#words.length * 32 - this.length
    if (over > 0) this.#words[this.#words.length - 1]! &= 0xffffffff >>> over
    this.#count += this.#countWords(first >>> 5, end) - before
  }

  toRanges(): RangeSet {
    const runs: [number, number][] = []
    for (let start = this.nextSet(0); start !== -1; ) {
      const end = this.nextClear(start)
      runs.push([start, end === -1 ? this.length : end])
      start = end === -1 ? -1 : this.nextSet(end)
    }
    return RangeSet.from(runs)
  }

  /** The set bits in ascending order. A bit that changes before the loop reaches it is seen as it is then. */
  *values(): Generator<number> {
    for (let i = this.nextSet(0); i !== -1; i = this.nextSet(i + 1)) yield i
  }

  /** Counts words by their index: for-of takes ten times as long, and there may be millions of words. */
  #countWords(start: number, end: number): number {
    let count = 0
    for (let i = start; i < end; i++) if (this.#words[i] !== 0) count += bitsIn(this.#words[i]!)
    return count
  }

  /**
   * The bytes that hold the bits from `first` on. Node runs on little-endian machines only, so bytes and words agree.
   */
  #bytesFrom(first: number): Uint8Array {
    assert(first % 32 === 0 && first < this.length)
    return new Uint8Array(this.#words.buffer, first / 8)
  }

  #fill(start: number, end: number, value: boolean): void {
    assert(start >= 0 && start <= end && end <= this.length, `bits [${start}, ${end}) of ${this.length}`)
    for (let i = start; i < end; ) {
      if ((i & 31) === 0 && end - i >= 32) {
        this.#count += value ? 32 - bitsIn(this.#words[i >>> 5]!) : -bitsIn(this.#words[i >>> 5]!)
        this.#words[i >>> 5] = value ? 0xffffffff : 0
        i += 32
      } else {
        if (value) this.set(i)
        else this.clear(i)
        i++
      }
    }
  }

  /** `flip` is 0 to look for set bits, all ones to look for clear ones. */
  #next(from: number, flip: number): number {
    if (from >= this.length) return -1
    let w = from >>> 5
    let word = ((this.#words[w]! ^ flip) & (0xffffffff << (from & 31))) >>> 0
    while (word === 0) {
      if (++w >= this.#words.length) return -1
      word = (this.#words[w]! ^ flip) >>> 0
    }
    const i = w * 32 + 31 - Math.clz32(word & -word)
    return i < this.length ? i : -1
  }
}

/** Population count of 32 bits (Warren, Hacker's Delight, section 5-1). */
function bitsIn(word: number): number {
  let n = word - ((word >>> 1) & 0x55555555)
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333)
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
