import { describe, expect, it } from 'vitest'
import { SERVE_BURST_MS, SERVE_CPU_WINDOW_MS } from '../../../../node/exchange/serve/limits.ts'
import { ServePace } from '../../../../node/exchange/serve/serve-pace.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { testSeed } from '../../../support/seed.ts'

const random = new Random(testSeed('serve-pace'))
const BLOCK = 64 * 1024

/** A machine whose clock and processor time the test sets. */
class FakeMachine {
  nowMs = 1000
  usedMs = 500
  readonly pace = new ServePace({ now: () => this.nowMs, cpuMs: () => this.usedMs })
}

/** The most that was done in any stretch of time beyond what `perMs` grants in it. */
function mostBeyond(done: readonly { at: number; amount: number }[], perMs: number): number {
  // Kadane's algorithm: each entry adds its amount, and the time before it takes away what was granted.
  let [most, current, last] = [0, 0, done[0]?.at ?? 0]
  for (const { at, amount } of done) {
    current = Math.max(0, current - (at - last) * perMs) + amount
    most = Math.max(most, current)
    last = at
  }
  return most
}

describe('ServePace', () => {
  it('lets through everything at once while nothing is limited', () => {
    const { pace } = new FakeMachine()
    pace.spend(1e12)
    expect(pace.measure()).toEqual({ ms: 0, why: undefined })
  })

  it('keeps the rate over any stretch of time, to one burst and one answer, and uses it up', () => {
    for (let round = 0; round < 30; round++) {
      const machine = new FakeMachine()
      const { pace } = machine
      const rate = (1 + random.below(200)) * 125_000
      pace.limit({ bytesPerSecond: rate })
      const done: { at: number; amount: number }[] = []
      let idleMs = 0
      const begun = machine.nowMs
      for (let n = 0; n < 500; n++) {
        const { ms, why } = pace.measure()
        expect(why).toBe(ms > 0 ? 'rate' : undefined)
        machine.nowMs += ms
        expect(pace.measure().ms).toBe(0)
        const wanted = 4096 * (1 + random.below(16))
        pace.spend(wanted)
        // Some of it turns out to be zeros, and is given back.
        const amount = random.below(4) === 0 ? Math.floor(wanted / 2) : wanted
        pace.spend(amount - wanted)
        done.push({ at: machine.nowMs, amount })
        if (random.below(50) === 0) {
          const pause = random.below(1000)
          machine.nowMs += pause
          idleMs += pause
        }
      }
      expect(mostBeyond(done, rate / 1000)).toBeLessThanOrEqual((rate * SERVE_BURST_MS) / 1000 + BLOCK)
      const sent = done.reduce((sum, { amount }) => sum + amount, 0)
      const busyMs = machine.nowMs - begun - idleMs
      // Each wait is rounded up to a millisecond.
      expect(sent).toBeGreaterThan((rate / 1000) * (busyMs - 500) - BLOCK)
    }
  })

  it('keeps below its share of the processor, counting what else the process does', () => {
    for (let round = 0; round < 30; round++) {
      const machine = new FakeMachine()
      const { pace } = machine
      // The smallest share, where one turn is more than a window grants, is always among them.
      const cpuShare = (1 + (round === 0 ? 0 : random.below(100))) / 100
      pace.limit({ cpuShare })
      const done: { at: number; amount: number }[] = []
      for (let n = 0; n < 500; n++) {
        const { ms, why } = pace.measure()
        expect(why).toBe(ms > 0 ? 'cpu' : undefined)
        machine.nowMs += ms
        if (pace.measure().ms > 0) continue
        const amount = 1 + random.below(20)
        machine.usedMs += amount
        machine.nowMs += amount
        done.push({ at: machine.nowMs, amount })
      }
      expect(done.length).toBeGreaterThan(100)
      expect(mostBeyond(done, cpuShare)).toBeLessThanOrEqual(cpuShare * SERVE_CPU_WINDOW_MS + 20)
    }
  })

  it('serves again within a window after other work that used the processor for long', () => {
    const machine = new FakeMachine()
    machine.pace.limit({ cpuShare: 0.25 })
    machine.nowMs += 60_000
    machine.usedMs += 120_000
    expect(machine.pace.measure()).toEqual({ ms: SERVE_CPU_WINDOW_MS, why: 'cpu' })
    machine.nowMs += SERVE_CPU_WINDOW_MS + 1
    expect(machine.pace.measure().ms).toBe(0)
    machine.usedMs += 60_000
    machine.pace.limit({})
    expect(machine.pace.measure().ms).toBe(0)
  })

  it('tells the rate of late', () => {
    const machine = new FakeMachine()
    for (let n = 0; n < 600; n++) {
      machine.nowMs += 100
      machine.pace.sent(1000)
    }
    expect(machine.pace.bytesPerSecond).toBeGreaterThan(9000)
    expect(machine.pace.bytesPerSecond).toBeLessThan(11_000)
    machine.nowMs += 60_000
    expect(machine.pace.bytesPerSecond).toBeLessThan(1)
    expect(machine.pace.bytes).toBe(600_000)
  })
})
