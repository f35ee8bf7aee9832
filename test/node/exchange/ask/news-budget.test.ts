import { describe, expect, it } from 'vitest'
import { NEWS_PER_SECOND } from '../../../../node/exchange/ask/limits.ts'
import { NewsBudget } from '../../../../node/exchange/ask/news-budget.ts'
import { MAX_RUNS_PER_HAVE } from '../../../../protocol/constants.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import type { Message } from '../../../../protocol/messages.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'

const root = digestOf(Buffer.from('image'))
const have = (gained: RangeSet): Message => ({ type: 'have', root, gained, lost: RangeSet.empty })

describe('what a server may tell unasked', () => {
  it('has room for the largest honest map: every second block of an image of 100 GiB', () => {
    const budget = new NewsBudget(0)
    const blocks = (100 * 1024 ** 3) / 65536
    for (let at = 0; at < blocks; at += 2 * MAX_RUNS_PER_HAVE) {
      const runs = Array.from({ length: MAX_RUNS_PER_HAVE }, (_, i) => [at + 2 * i, at + 2 * i + 1] as const)
      expect(budget.take(have(RangeSet.from(runs)), 0)).toBe(true)
    }
    // And for what 30 minutes of restoring tell, every 200 ms.
    for (let ms = 0; ms < 1_800_000; ms += 200) {
      const at = ms / 200
      expect(budget.take(have(RangeSet.of(at * 180, at * 180 + 180)), ms)).toBe(true)
    }
  })

  it('ends for who flips a large image over and over, and for who sends small news without end', () => {
    const turns = (message: Message, perSecond: number): number => {
      const budget = new NewsBudget(0)
      for (let i = 0; i < 1_000_000; i++) if (!budget.take(message, (i * 1000) / perSecond)) return i
      return Number.POSITIVE_INFINITY
    }
    expect(turns(have(RangeSet.of(0, 1_600_000)), 100)).toBeLessThan(300)
    expect(turns({ type: 'missing', ids: [] }, NEWS_PER_SECOND * 5)).toBeLessThan(40_000)
    expect(turns({ type: 'missing', ids: [] }, NEWS_PER_SECOND / 2)).toBe(Number.POSITIVE_INFINITY)
  })
})
