import { describe, expect, it } from 'vitest'
import { runScenario } from '../../tools/simulate/run-scenario.ts'
import { SCENARIOS, type ScenarioName } from '../../tools/simulate/scenarios.ts'

/**
 * What 60 machines and 500 blocks come to, with margin: each machine's share is 8 blocks, so the ends weigh more than in a
 * lab (`npm run simulate -- --blocks 4000`).
 */
const LIMITS: Readonly<Record<ScenarioName, { last: number; source: number; useless: number }>> = {
  provision: { last: 1.6, source: 1.6, useless: 0.02 },
  'two-sources': { last: 1.5, source: 2.5, useless: 0.08 },
  restore: { last: 2.5, source: 0.01, useless: 0.1 },
  churn: { last: 1.7, source: 1.7, useless: 0.05 },
  slow: { last: 2.8, source: 2.2, useless: 0.2 },
  liars: { last: 1.8, source: 1.8, useless: 0.05 },
  stalls: { last: 1.9, source: 1.9, useless: 0.02 },
  uplink: { last: 1.1, source: 3.1, useless: 0.01 },
  'dying-owners': { last: 1.15, source: 3.2, useless: 0.02 },
}

describe('the simulated lab', () => {
  it.each(Object.keys(SCENARIOS) as ScenarioName[])('ends, near the optimum: %s', (scenario) => {
    const result = runScenario({ scenario, machines: 60, blocks: 500, offerMs: 100, seed: 1 })
    expect(result.unfinished).toEqual([])
    const { last, source, useless } = LIMITS[scenario]
    expect(result.last).toBeLessThan(last)
    expect(result.source).toBeLessThan(source)
    expect(result.useless).toBeLessThan(useless)
  })

  it('comes within a tenth of the optimum when shares are large', () => {
    const result = runScenario({ scenario: 'provision', machines: 8, blocks: 2000, offerMs: 100, seed: 1 })
    expect(result.last).toBeLessThan(1.1)
    expect(result.source).toBeLessThan(1.1)
    expect(result.median).toBeLessThanOrEqual(result.last)
  })

  it.each([
    ['uplink', 1.01],
    ['dying-owners', 1.05],
  ] as const)('brings an image over the uplink of each site once: %s', (scenario, most) => {
    const { uplink, unfinished } = runScenario({ scenario, machines: 40, blocks: 500, offerMs: 100, seed: 1 })
    expect(unfinished).toEqual([])
    expect(uplink).toBeGreaterThanOrEqual(1)
    expect(uplink).toBeLessThan(most)
  })

  it('does so with 1,000 machines in 20 sites', () => {
    const options = { scenario: 'uplink', machines: 1000, sites: 20, blocks: 100, offerMs: 100, seed: 1 } as const
    const { uplink, unfinished, last } = runScenario(options)
    expect(unfinished).toEqual([])
    expect(uplink).toBeLessThan(1.01)
    // Two blocks are each machine's share, and one in ten of what crosses at all.
    expect(last).toBeLessThan(1.5)
  })

  it('is the same every time', () => {
    const options = { scenario: 'churn', machines: 10, blocks: 200, offerMs: 100, seed: 7 } as const
    expect(runScenario(options)).toEqual(runScenario(options))
    expect(runScenario({ ...options, seed: 8 })).not.toEqual({ ...runScenario(options), seed: 8 })
  })
})
