import { describe, expect, it } from 'vitest'
import { PROVEN_BYTES_PER_SECOND, SLOW_BYTES_PER_SECOND, SLOW_MS } from '../../../../node/exchange/ask/limits.ts'
import { Standing } from '../../../../node/exchange/ask/standing.ts'

describe('the standing of a peer', () => {
  /** Looks every 100 ms for so long, while the peer delivers evenly. */
  function watch(standing: Standing, from: number, ms: number, rate: number, asked = true): number {
    for (let at = from; at <= from + ms; at += 100) {
      standing.delivered(rate / 10)
      standing.look(at, asked)
    }
    return from + ms
  }

  it('is lost by who is asked and delivers next to nothing', () => {
    for (const rate of [0, SLOW_BYTES_PER_SECOND / 2]) {
      const standing = new Standing(false)
      watch(standing, 0, SLOW_MS - 100, rate)
      expect(standing.isDoubtful).toBe(false)
      watch(standing, SLOW_MS, SLOW_MS, rate)
      expect(standing.isDoubtful).toBe(true)
    }
  })

  it('is kept by who is slow, but not that slow, and by who is asked for nothing', () => {
    const slow = new Standing(false)
    watch(slow, 0, 10 * SLOW_MS, SLOW_BYTES_PER_SECOND * 1.2)
    expect(slow.isDoubtful).toBe(false)
    const idle = new Standing(false)
    watch(idle, 0, 10 * SLOW_MS, 0, false)
    expect(idle.isDoubtful).toBe(false)
    // What was before it was idle does not count.
    const paused = new Standing(false)
    for (let at = 0; at < 20 * SLOW_MS; at += SLOW_MS) {
      paused.look(at, true)
      paused.look(at + 100, false)
    }
    expect(paused.isDoubtful).toBe(false)
  })

  it('is won back by delivering well, and not by less', () => {
    const standing = new Standing(true)
    watch(standing, 0, 3 * SLOW_MS, PROVEN_BYTES_PER_SECOND * 0.8)
    expect(standing.isDoubtful).toBe(true)
    watch(standing, 4 * SLOW_MS, 3 * SLOW_MS, PROVEN_BYTES_PER_SECOND * 1.2)
    expect(standing.isDoubtful).toBe(false)
  })
})
