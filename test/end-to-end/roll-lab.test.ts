import { describe, expect, it } from 'vitest'
import { whyNoNetwork } from '../../tools/netlab/network.ts'
import { runRollLab } from '../../tools/netlab/roll.ts'
import { testSeed } from '../support/seed.ts'

const why = await whyNoNetwork()
if (why !== undefined) console.warn(`SKIPPED: ${why}`)

describe.skipIf(why !== undefined)('npm run lab -- roll', () => {
  it('resets four machines on a network of their own, of which one is lost and one in use', async () => {
    const options = { machines: 4, size: 1024 ** 2, wave: 1, holders: 3, timeoutSeconds: 45, share: 0.1, mdns: false }
    const seed = testSeed('roll lab')
    const result = await runRollLab({ ...options, seed, build: false }, new AbortController().signal, () => undefined)
    expect(result.report).toMatchObject({ verified: 2, failed: 1, skipped: 1 })
    expect(result.leastHolders).toBeGreaterThanOrEqual(options.holders)
    expect(result.mostDown).toBe(1)
    expect(result.steps).toBeGreaterThan(2)
  })
})
