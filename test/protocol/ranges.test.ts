import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Bitmap } from '../../protocol/bitmap.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'

const LENGTH = 200
const runs = fc.array(
  fc.tuple(fc.nat(LENGTH), fc.nat(LENGTH)).map(([a, b]): Run => [Math.min(a, b), Math.max(a, b)]),
  { maxLength: 12 },
)
const members = (list: readonly Run[]): Set<number> => {
  const set = new Set<number>()
  for (const [start, end] of list) for (let n = start; n < end; n++) set.add(n)
  return set
}
const sorted = (set: Iterable<number>): number[] => [...set].sort((a, b) => a - b)

describe('RangeSet', () => {
  it('behaves as a set of numbers', () => {
    fc.assert(
      fc.property(runs, runs, (listA, listB) => {
        const [a, b] = [RangeSet.from(listA), RangeSet.from(listB)]
        const [setA, setB] = [members(listA), members(listB)]
        expect([...a.values()]).toEqual(sorted(setA))
        expect(a.count).toBe(setA.size)
        expect(a.end).toBe(setA.size === 0 ? 0 : Math.max(...setA) + 1)
        expect([...a.union(b).values()]).toEqual(sorted(setA.union(setB)))
        expect([...a.subtract(b).values()]).toEqual(sorted(setA.difference(setB)))
        expect([...a.intersect(b).values()]).toEqual(sorted(setA.intersection(setB)))
        for (let n = 0; n <= LENGTH; n++) expect(a.has(n)).toBe(setA.has(n))
        expect(a.equals(RangeSet.from(sorted(setA).map((n): Run => [n, n + 1])))).toBe(true)
      }),
    )
  })

  it('keeps runs sorted, disjoint and not adjacent', () => {
    fc.assert(
      fc.property(runs, runs, (listA, listB) => {
        for (const set of [RangeSet.from(listA), RangeSet.from(listA).union(RangeSet.from(listB))]) {
          let last = -1
          for (const [start, end] of set.runs()) {
            expect(start).toBeGreaterThan(last)
            expect(end).toBeGreaterThan(start)
            last = end
          }
        }
      }),
    )
  })

  it('refuses runs that are none', () => {
    for (const [start, end] of [
      [3, 2],
      [-1, 2],
      [0.5, 2],
      [0, Number.NaN],
    ]) {
      expect(() => RangeSet.of(start!, end!)).toThrow()
    }
  })
})

type Step = { readonly kind: 'set' | 'clear' | 'setRange' | 'clearRange'; readonly run: Run }
const steps = fc.array(
  fc.record({
    kind: fc.constantFrom('set', 'clear', 'setRange', 'clearRange'),
    run: fc.tuple(fc.nat(LENGTH - 1), fc.nat(LENGTH)).map(([a, b]): Run => [Math.min(a, b), Math.max(a, b)]),
  }) as fc.Arbitrary<Step>,
)

describe('Bitmap', () => {
  it('behaves as a set of numbers', () => {
    fc.assert(
      fc.property(steps, runs, (list, otherRuns) => {
        const bitmap = new Bitmap(LENGTH)
        const model = new Set<number>()
        for (const { kind, run } of list) {
          const [start, end] = run
          const at = Math.min(start, LENGTH - 1)
          if (kind === 'set') expect(bitmap.set(at)).toBe(!model.has(at))
          if (kind === 'clear') expect(bitmap.clear(at)).toBe(model.has(at))
          if (kind === 'setRange') bitmap.setRange(start, end)
          if (kind === 'clearRange') bitmap.clearRange(start, end)
          const touched = kind.endsWith('Range') ? members([run]) : new Set([at])
          for (const n of touched) kind.startsWith('set') ? model.add(n) : model.delete(n)
        }
        const other = Bitmap.fromRanges(LENGTH, RangeSet.from(otherRuns))
        expect(bitmap.count).toBe(model.size)
        expect([...bitmap.values()]).toEqual(sorted(model))
        expect([...bitmap.toRanges().values()]).toEqual(sorted(model))
        for (let n = 0; n < LENGTH; n++) {
          const least = (wanted: (m: number) => boolean): number => {
            for (let m = n; m < LENGTH; m++) if (wanted(m)) return m
            return -1
          }
          expect(bitmap.nextSet(n)).toBe(least((m) => model.has(m)))
          expect(bitmap.nextClear(n)).toBe(least((m) => !model.has(m)))
          expect(bitmap.nextSetInBoth(other, n)).toBe(least((m) => model.has(m) && other.has(m)))
        }
      }),
    )
  })

  it('refuses bits beyond its length and knows that they are not set', () => {
    const bitmap = new Bitmap(33)
    bitmap.setRange(0, 33)
    expect(bitmap.has(33)).toBe(false)
    expect(bitmap.nextClear(0)).toBe(-1)
    expect(() => bitmap.set(33)).toThrow()
    expect(() => bitmap.setRange(0, 34)).toThrow()
  })
})
