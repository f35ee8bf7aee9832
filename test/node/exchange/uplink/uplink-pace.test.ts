import { describe, expect, it } from 'vitest'
import { UPLINK_BURST_MS } from '../../../../node/exchange/uplink/limits.ts'
import { UplinkFigures } from '../../../../node/exchange/uplink/uplink-figures.ts'
import { UplinkGate } from '../../../../node/exchange/uplink/uplink-gate.ts'
import { UplinkPace } from '../../../../node/exchange/uplink/uplink-pace.ts'
import { parseUplinkRule } from '../../../../protocol/uplink-rule.ts'

/** A clock that is set; the day does not matter. */
function clock() {
  const time = { ms: 0, hour: 12 }
  return { time, now: () => time.ms, local: () => new Date(2026, 0, 5, time.hour, 30) }
}

const NIGHT = parseUplinkRule('8 Mbit/s, 20:00-06:00; 4 Mbit/s, 06:00-08:00')

describe('UplinkPace', () => {
  it('lets through its part of the rate, and no more', () => {
    const at = clock()
    at.time.hour = 21
    const pace = new UplinkPace({ rules: NIGHT, strict: false }, at)
    pace.share(4)
    let crossed = 0
    for (; at.time.ms < 60_000; at.time.ms += 10) {
      if (pace.waitMs() > 0) continue
      pace.spend(65_536)
      crossed += 65_536
    }
    // 1 MB/s, a quarter of it.
    expect(crossed).toBeGreaterThan(60 * 250_000 * 0.95)
    expect(crossed).toBeLessThanOrEqual((60 + UPLINK_BURST_MS / 1000) * 250_000 + 65_536)
  })

  it('is shut outside of its windows if it is strict, else goes at the lowest rate', () => {
    const at = clock()
    expect(new UplinkPace({ rules: NIGHT, strict: true }, at).bytesPerSecond).toBe(0)
    expect(new UplinkPace({ rules: NIGHT, strict: true }, at).waitMs()).toBe(Number.POSITIVE_INFINITY)
    expect(new UplinkPace({ rules: NIGHT, strict: false }, at).bytesPerSecond).toBe(500_000)
    at.time.hour = 23
    expect(new UplinkPace({ rules: NIGHT, strict: true }, at).bytesPerSecond).toBe(1e6)
  })
})

describe('UplinkGate', () => {
  const siteOf = (peerId: string): string | undefined => (peerId.startsWith('far') ? peerId.slice(0, 4) : undefined)
  const figures = new UplinkFigures((peerId) => {
    const site = siteOf(peerId)
    return site === undefined ? undefined : { name: peerId, site }
  })

  it('holds back all machines of one site together, no other site, and nobody near', () => {
    const at = clock()
    const gate = new UplinkGate({ siteOf, figures })
    gate.limit({ rules: parseUplinkRule('8 Mbit/s'), strict: false }, at)
    expect(gate.waitMs('far1-a')).toBe(0)
    gate.spend('far1-a', 1e6)
    expect(gate.waitMs('far1-b')).toBe(1000)
    expect(gate.waitMs('far2-a')).toBe(0)
    expect(gate.waitMs('pc1')).toBe(0)
    gate.limit(undefined, at)
    expect(gate.waitMs('far1-b')).toBe(0)
  })

  it('counts what crosses by site, machine and reason', () => {
    const gate = new UplinkGate({ siteOf, figures })
    gate.sent('far1-a', 0, 100)
    gate.sent('far1-b', 1, 10)
    gate.sent('pc1', 0, 1)
    figures.count('far1-a', 'in', 'metadata', 5)
    expect(figures.bySite()).toEqual([
      {
        site: 'far1',
        in: { blocks: 0, pages: 0, metadata: 5 },
        out: { blocks: 100, pages: 10, metadata: 0 },
        peers: [
          { name: 'far1-a', in: 5, out: 100 },
          { name: 'far1-b', in: 0, out: 10 },
        ],
      },
    ])
  })
})
