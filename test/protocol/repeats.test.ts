import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isMeshError } from '../../protocol/errors.ts'
import { decodeRepeats, encodeRepeats, type Repeat } from '../../protocol/repeats.ts'

const PAGE = 4096
const GRANULES = 1_000_000
const SIZE = GRANULES * 4096

/** Repeats that lie apart, in order. */
const repeats = fc
  .array(fc.record({ gap: fc.nat(500), back: fc.nat(500), count: fc.integer({ min: 1, max: 100 }) }), {
    maxLength: 200,
  })
  .map((items) => {
    let end = 0
    return items.map(({ gap, back, count }): Repeat => {
      const to = end + gap + count
      end = to + count
      return { to, from: Math.max(0, to - count - back), count }
    })
  })

const bytes = (page: number[]): Uint8Array => Buffer.concat([Buffer.from(page), Buffer.alloc(PAGE)]).subarray(0, PAGE)
/** A page with one list of varints below 128. */
const listed = (...values: number[]): Uint8Array => bytes([values.length + 2, 0, 0, 0, 0x0a, values.length, ...values])

describe('a list of repeats', () => {
  it('is read as it was written', () => {
    fc.assert(
      fc.property(repeats, (list) => {
        const page = encodeRepeats(list, PAGE)
        expect(page.byteLength).toBe(PAGE)
        expect(decodeRepeats(page, SIZE)).toEqual(list)
      }),
    )
  })

  it('has the golden bytes', () => {
    const page = encodeRepeats([{ to: 300, from: 5, count: 16 }], PAGE)
    expect(Buffer.from(page).subarray(0, 11).toString('hex')).toBe('060000000a04ac020510' + '00')
  })

  it('holds the longest of more than fit', () => {
    const many = Array.from(
      { length: 5000 },
      (_, i): Repeat => ({ to: 1000 + 200 * i, from: i % 500, count: 1 + (i % 97) }),
    )
    const kept = decodeRepeats(encodeRepeats(many, PAGE), SIZE * 2)
    expect(kept.length).toBeGreaterThan(500)
    expect(kept.length).toBeLessThan(PAGE / 3)
    const shortest = Math.min(...kept.map(({ count }) => count))
    const [longer, atLeast] = [
      many.filter(({ count }) => count > shortest),
      many.filter(({ count }) => count >= shortest),
    ]
    expect(kept.length).toBeGreaterThanOrEqual(longer.length)
    expect(kept.length).toBeLessThanOrEqual(atLeast.length)
    const texts = new Set(many.map((repeat) => JSON.stringify(repeat)))
    for (const repeat of kept) expect(texts.has(JSON.stringify(repeat))).toBe(true)
  })

  it('is refused if it speaks of another image, or is none', () => {
    expect(decodeRepeats(listed(10, 0, 5), SIZE)).toEqual([{ to: 10, from: 0, count: 5 }])
    expect(decodeRepeats(new Uint8Array(PAGE), SIZE)).toEqual([])
    const bad = [
      // Overlaps, is empty, lies beyond the image, is cut off.
      [listed(10, 6, 5), SIZE],
      [listed(10, 0, 0), SIZE],
      [listed(10, 0, 5), 14 * 4096],
      [listed(10, 0), SIZE],
      [bytes([0xff, 0xff, 0, 0]), SIZE],
      [bytes([3, 0, 0, 0, 0x0a, 9, 1]), SIZE],
      [Buffer.alloc(2), SIZE],
    ] as const
    for (const [page, size] of bad) {
      let error: unknown
      try {
        decodeRepeats(page, size)
      } catch (thrown) {
        error = thrown
      }
      expect(isMeshError(error, 'PROTOCOL_VIOLATION')).toBe(true)
    }
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 200 }), (page) => {
        try {
          decodeRepeats(page, SIZE)
        } catch (error) {
          expect(isMeshError(error, 'PROTOCOL_VIOLATION')).toBe(true)
        }
      }),
      { numRuns: 1000 },
    )
  })
})
