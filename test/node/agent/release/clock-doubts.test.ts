import { describe, expect, it } from 'vitest'
import { type ClockEvidence, clockDoubts } from '../../../../node/agent/release/clock-doubts.ts'

const DAY = 24 * 3600 * 1000
const NOW = Date.parse('2026-10-01T08:00:00.000Z')
const right: ClockEvidence = {
  now: NOW,
  offsets: [],
  restores: [NOW - DAY, NOW - 2 * DAY, NOW - 200 * DAY],
  signedAt: NOW - 10 * DAY,
  before: { release: 3, time: NOW - 20 * DAY },
}
const doubts = (other: Partial<ClockEvidence>): string => clockDoubts({ ...right, ...other }).join('\n')

describe('the clock of whoever publishes', () => {
  it('is not doubted in the daily life of a lab, nor after the summer, nor before there is one', () => {
    expect(doubts({})).toBe('')
    expect(doubts({ restores: [NOW - 90 * DAY], signedAt: NOW - 90 * DAY })).toBe('')
    expect(doubts({ restores: [], before: undefined, signedAt: NOW })).toBe('')
    // Who publishes once a year, and for himself.
    expect(doubts({ restores: [], signedAt: NOW - 365 * DAY })).toBe('')
  })

  it('must agree with most members that are here, whatever was signed', () => {
    expect(doubts({ offsets: [60_000] })).toBe('')
    expect(doubts({ offsets: [-365 * DAY] })).toMatch(/says 2026-10-01 .*, and the clocks of 1 members .* 2025-10-01/)
    expect(doubts({ offsets: [40 * DAY, 41 * DAY, 0] })).toMatch(/2026-11-10/)
    // One dead clock among three.
    expect(doubts({ offsets: [-9000 * DAY, 500, -500] })).toBe('')
    // The site was published with a clock that was ahead, and members say that this one is right.
    const ahead = { before: { release: 3, time: NOW + 365 * DAY }, signedAt: NOW + 365 * DAY }
    expect(doubts({ ...ahead, offsets: [1000, 2000] })).toBe('')
    expect(doubts(ahead)).toMatch(/release 3 was signed at 2027-10-01/)
  })

  it('must not be behind what was signed or restored', () => {
    expect(doubts({ signedAt: NOW + 3 * DAY })).toMatch(/metadata of the site was signed at 2026-10-04/)
    expect(doubts({ restores: [NOW + 50 * DAY, NOW + 51 * DAY, NOW] })).toMatch(/most machines restored later/)
    // A single machine whose clock is ahead says nothing.
    expect(doubts({ restores: [NOW + 5000 * DAY, NOW - DAY, NOW - DAY] })).toBe('')
  })

  it('must not be far ahead of the last sign of life', () => {
    expect(doubts({ restores: [NOW - 121 * DAY] })).toMatch(/last restore that a machine told of .*, 121 days before/)
    expect(doubts({ restores: [], signedAt: NOW - 401 * DAY })).toMatch(/last signed at .*, 401 days before/)
  })
})
