import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type CompressionCosts, smallestToPack } from '../../../../node/exchange/ask/compression-policy.ts'
import { PACK_OVERHEAD_MS, UNPACK_OVERHEAD_MS } from '../../../../node/exchange/ask/limits.ts'

const MBIT = 125_000
const BLOCK = 65_536
const GRANULE = 4096

/** Two cores of a small machine, content of which half is left, one peer. */
function costs(mbit: number, change: Partial<CompressionCosts> = {}): CompressionCosts {
  const linkRate = mbit * MBIT
  return { linkRate, totalRate: linkRate, packRate: 200e6, unpackRate: 400e6, ratio: 0.5, ...change }
}

describe('smallestToPack', () => {
  it.each([
    // Mbit/s, what else is known, whether 64 KiB and 4 KiB are compressed
    [5, {}, true, true],
    [20, {}, true, true],
    [100, {}, true, false],
    [1000, {}, false, false],
    [10_000, {}, false, false],
    [20, { ratio: 1 }, false, false],
    [100, { ratio: 0.95 }, false, false],
    [100, { packRate: 20e6 }, false, false],
    [5, { packRate: 20e6 }, true, true],
    // Ten peers whose links together are faster than this machine unpacks.
    [100, { totalRate: 200e6 }, false, false],
    // Fast cores.
    [1000, { packRate: 800e6, unpackRate: 1600e6, ratio: 0.2 }, true, false],
  ])('at %d Mbit/s and %j: blocks %s, granules %s', (mbit, change, block, granule) => {
    const from = smallestToPack(costs(mbit, change))
    expect([from > 0 && from <= BLOCK, from > 0 && from <= GRANULE]).toEqual([block, granule])
  })

  const rate = fc.double({ min: 1e4, max: 1e10, noNaN: true })
  const any = fc.record({
    linkRate: rate,
    totalRate: rate,
    packRate: rate,
    unpackRate: rate,
    ratio: fc.double({ min: 0.01, max: 1.1, noNaN: true }),
  })

  it('says so exactly where the link is spared more than the cores spend', () => {
    fc.assert(
      fc.property(any, fc.integer({ min: 1, max: 1024 * 1024 }), (given, size) => {
        const { linkRate: link, packRate, unpackRate, ratio } = given
        const spared = (size * (1 - ratio)) / link
        const peer = size / packRate + PACK_OVERHEAD_MS / 1000
        const here = ((size / unpackRate + UNPACK_OVERHEAD_MS / 1000) * Math.max(link, given.totalRate)) / link
        // Neither side of the bound itself, where rounding decides.
        fc.pre(Math.abs(spared - peer - here) > 1e-6 * spared + size ** -1 * 1e-3)
        const from = smallestToPack(given)
        expect(Number.isSafeInteger(from) || from > 1e15).toBe(true)
        if (from > 0 && from <= size) expect(spared).toBeGreaterThan((peer + here) * 0.999)
        else expect(spared).toBeLessThan((peer + here) * 1.001 + (1 - ratio) / link)
      }),
    )
  })

  it('never wants less compressed on a slower link, with faster cores or better ratio', () => {
    const never = (from: number): number => (from === 0 ? Number.POSITIVE_INFINITY : from)
    fc.assert(
      fc.property(any, fc.double({ min: 1, max: 100, noNaN: true }), (given, factor) => {
        const from = never(smallestToPack(given))
        for (const better of [
          { ...given, linkRate: given.linkRate / factor, totalRate: given.totalRate / factor },
          { ...given, packRate: given.packRate * factor },
          { ...given, unpackRate: given.unpackRate * factor },
          { ...given, ratio: given.ratio / factor },
        ])
          expect(never(smallestToPack(better))).toBeLessThanOrEqual(from)
      }),
    )
  })
})
