import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { removeFolder } from './folder.ts'
import { fuzz } from './fuzzer.ts'
import { TARGETS } from './targets.ts'

const FOUND = join(import.meta.dirname, '../fixtures/fuzz')
/** Always the same inputs: `npm run fuzz` looks for new ones. */
const SEED = 14
const INPUTS = 1_000

afterAll(removeFolder)

describe.each(TARGETS)('the decoder of $name', { timeout: 120_000 }, (target) => {
  it('keeps its promises for changed encodings', async () => {
    const most = target.inputsInSuite ?? INPUTS
    const { findings, inputs } = await fuzz(target, { seed: SEED, more: (tried) => tried < most })
    expect(findings.map(({ why, input }) => `${why}\n${input.toString('hex')}`)).toEqual([])
    expect(inputs).toBeGreaterThanOrEqual(most)
  })

  it('keeps them for all that has broken one before', async () => {
    await target.seeds()
    const folder = join(FOUND, target.name)
    const found = existsSync(folder) ? readdirSync(folder).map((name) => readFileSync(join(folder, name))) : []
    const { findings } = await fuzz(
      { ...target, seeds: () => found, takesSeeds: false },
      { seed: SEED, more: () => false },
    )
    expect(findings.map(({ why }) => why)).toEqual([])
  })
})
