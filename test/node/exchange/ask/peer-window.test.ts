import { describe, expect, it } from 'vitest'
import { MIN_PEER_WINDOW_BYTES, PEER_QUEUE_MS } from '../../../../node/exchange/ask/limits.ts'
import { PeerWindow } from '../../../../node/exchange/ask/peer-window.ts'

const BLOCK = 65_536

/**
 * A peer whose link carries `rate` bytes a second and answers after `delayMs` at the earliest; it is asked for all that the
 * window lets, for `ms`. Returns the share of the time in which its link was busy.
 */
function run(window: PeerWindow, link: { rate: number; delayMs: number }, ms: number, from = 0): number {
  const answers: { askedAt: number; at: number }[] = []
  let open = 0
  let free = from
  let busyMs = 0
  let now = from
  window.begun(now)
  while (now < from + ms) {
    while (open + BLOCK <= window.size) {
      const begins = Math.max(now + link.delayMs, free)
      free = begins + (BLOCK * 1000) / link.rate
      answers.push({ askedAt: now, at: free })
      open += BLOCK
    }
    const { askedAt, at } = answers.shift()!
    now = at
    open -= BLOCK
    busyMs += (BLOCK * 1000) / link.rate
    window.delivered(BLOCK, open, now - askedAt, now)
  }
  return busyMs / (now - from)
}

describe('PeerWindow', () => {
  it.each([
    { rate: 625_000, delayMs: 20 },
    { rate: 2_500_000, delayMs: 5 },
    { rate: 12_500_000, delayMs: 1 },
    { rate: 12_500_000, delayMs: 60 },
    { rate: 117_000_000, delayMs: 1 },
    { rate: 400_000_000, delayMs: 0.1 },
  ])('keeps a link of $rate bytes/s with $delayMs ms busy, and not much more waiting there', (link) => {
    const window = new PeerWindow()
    run(window, link, 3_000)
    expect(run(window, link, 3_000, 3_000)).toBeGreaterThan(0.97)
    expect(window.rate).toBeGreaterThan(link.rate * 0.9)
    expect(window.rate).toBeLessThan(link.rate * 1.15)
    const waiting = (PEER_QUEUE_MS + Math.min(PEER_QUEUE_MS, link.delayMs + 150)) / 1000
    expect(window.size).toBeLessThan(Math.max(2 * MIN_PEER_WINDOW_BYTES, link.rate * waiting * 1.6))
  })

  it('follows a link that becomes slower, and one that becomes faster again', () => {
    const window = new PeerWindow()
    run(window, { rate: 12_500_000, delayMs: 1 }, 2_000)
    const before = window.size
    run(window, { rate: 1_250_000, delayMs: 1 }, 5_000, 2_000)
    expect(window.rate).toBeLessThan(1_500_000)
    expect(window.size).toBeLessThan(before / 3)
    run(window, { rate: 12_500_000, delayMs: 1 }, 5_000, 10_000)
    expect(window.rate).toBeGreaterThan(10_000_000)
  })

  it('does not take a peer for slow that was asked for little', () => {
    const window = new PeerWindow()
    run(window, { rate: 12_500_000, delayMs: 1 }, 2_000)
    const { rate } = window
    for (let now = 10_000; now < 20_000; now += 500) {
      window.begun(now)
      window.delivered(4096, 0, 2, now + 2)
    }
    expect(window.rate).toBe(rate)
  })
})
