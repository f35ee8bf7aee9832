import { describe, expect, it } from 'vitest'
import { BUSY_RETRY_MAX_MS, BUSY_RETRY_MIN_MS } from '../../../../node/exchange/limits.ts'
import { SERVE_PLACE_IDLE_MS, SERVE_PLACE_MS } from '../../../../node/exchange/serve/limits.ts'
import { ServePlaces } from '../../../../node/exchange/serve/serve-places.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { testSeed } from '../../../support/seed.ts'

const random = new Random(testSeed('serve-places'))

describe('ServePlaces', () => {
  it('serves everybody while there is no limit', () => {
    const places = new ServePlaces()
    for (let n = 0; n < 1000; n++) expect(places.ask(`peer ${n}`, n)).toBe(0)
  })

  it('serves so many at a time, and each of those that wait in its turn', () => {
    for (let round = 0; round < 20; round++) {
      const most = 1 + random.below(4)
      const peers = Array.from({ length: most + 1 + random.below(12) }, (_, i) => `peer ${i}`)
      const places = new ServePlaces(most)
      const askAt = new Map(peers.map((peer) => [peer, random.below(50)]))
      const served = new Map(peers.map((peer) => [peer, 0]))
      const waitedSince = new Map<string, number>()
      let longestMs = 0
      for (let now = 0; now < 60_000; now += 10) {
        const working = new Set<string>()
        for (const peer of peers) {
          if (now < askAt.get(peer)!) continue
          const busyMs = places.ask(peer, now)
          if (busyMs === 0) {
            working.add(peer)
            served.set(peer, served.get(peer)! + 10)
            longestMs = Math.max(longestMs, now - (waitedSince.get(peer) ?? now))
            waitedSince.delete(peer)
            continue
          }
          expect(busyMs).toBeGreaterThanOrEqual(BUSY_RETRY_MIN_MS)
          expect(busyMs).toBeLessThanOrEqual(BUSY_RETRY_MAX_MS)
          askAt.set(peer, now + busyMs)
          if (!waitedSince.has(peer)) waitedSince.set(peer, now)
        }
        expect(working.size).toBeLessThanOrEqual(most)
      }
      // Everybody else has a turn in between, and each may be asked for up to a second late.
      const turns = Math.ceil(peers.length / most)
      expect(longestMs).toBeLessThanOrEqual(turns * (SERVE_PLACE_MS + BUSY_RETRY_MAX_MS))
      const times = [...served.values()]
      expect(Math.min(...times)).toBeGreaterThan(0.3 * Math.max(...times))
    }
  })

  it('keeps a place in the line for who comes back, and gives up that of who does not', () => {
    const places = new ServePlaces(1)
    expect(places.ask('a', 0)).toBe(0)
    expect(places.ask('b', 10)).toBeGreaterThan(0)
    expect(places.ask('c', 20)).toBeGreaterThan(0)
    // a asks no more: its place is b's, though c comes first.
    const later = 20 + SERVE_PLACE_IDLE_MS + 1
    expect(places.ask('c', later)).toBeGreaterThan(0)
    expect(places.ask('b', later + 1)).toBe(0)
    places.leave('b')
    expect(places.ask('a', later + 2)).toBeGreaterThan(0)
    places.leave('c')
    expect(places.ask('a', later + 3)).toBe(0)
    // d waits, goes away without a word, and is forgotten; so is a.
    expect(places.ask('d', later + 4)).toBeGreaterThan(0)
    expect(places.waiting).toBe(1)
    expect(places.ask('e', later + 10 * BUSY_RETRY_MAX_MS)).toBe(0)
    expect(places.waiting).toBe(0)
  })

  it('asks for patience as long as the next place takes', () => {
    const places = new ServePlaces(2)
    places.ask('a', 0)
    places.ask('b', 100)
    const almost = SERVE_PLACE_MS - 300
    for (const peer of ['a', 'b']) for (let now = 100; now <= almost; now += 100) places.saw(peer, now)
    expect(places.ask('c', almost)).toBe(300)
    expect(places.ask('d', almost)).toBe(400)
    expect(places.ask('e', almost)).toBe(BUSY_RETRY_MAX_MS)
  })
})
