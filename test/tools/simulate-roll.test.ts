import { describe, expect, it } from 'vitest'
import { runRollScenario } from '../../tools/simulate/roll-scenario.ts'
import { testSeed } from '../support/seed.ts'

/** A quarter of what `npm run simulate -- --scenario roll` does, with an image of fewer blocks. */
const LAB = { machines: 250, sites: 5, blocks: 400, wave: 60, holders: 2 }

describe('simulated rolls', () => {
  it('leave every block on enough machines, however large a wave may be, and end', () => {
    const result = runRollScenario({ ...LAB, seed: testSeed('simulated rolls') })
    expect(result).toMatchObject({ broken: 0, unfinished: 0 })
    // The rule decided, not the size of the wave; and most of the lab was reset.
    expect(result.leastHolders).toBe(LAB.holders)
    expect(result.mostDown).toBeLessThan(LAB.wave)
    expect(result.ends.verified).toBeGreaterThan(LAB.machines * 0.85)
    expect(result.ends.verified + result.ends.failed + result.ends.skipped).toBe(LAB.machines)
  })

  it('have no more machines down than a wave has, and are the same every time', () => {
    const options = { ...LAB, machines: 60, sites: 3, wave: 4, seed: 3 }
    const result = runRollScenario(options)
    expect(result.mostDown).toBe(4)
    expect(runRollScenario(options)).toEqual(result)
  })
})
