import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseEraBlocks } from '../../../node/writelog/era-blocks.ts'
import { runSystemTool } from '../../../node/writelog/system-tool.ts'
import { Random } from '../../../tools/lab/random.ts'
import { codeOf } from '../../support/error-code.ts'
import { testSeed } from '../../support/seed.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const runsOf = (xml: string): unknown => [...parseEraBlocks(xml).runs()]

describe('what era_invalidate prints', () => {
  it('is blocks and ranges with an exclusive end', () => {
    expect(runsOf('<blocks>\n</blocks>\n')).toEqual([])
    expect(runsOf('<blocks>\n  <block block="3"/>\n  <range begin="5" end = "7"/>\n</blocks>\n')).toEqual([
      [3, 4],
      [5, 7],
    ])
    // As newer versions write it.
    expect(runsOf('<blocks>\n  <range begin="5" end="7"/>\n</blocks>')).toEqual([[5, 7]])
  })

  it.each([
    '',
    '<blocks>',
    '<blocks>\n  <block block="3"/>\n',
    '<blocks><block block="x"/></blocks>',
    '<blocks><range begin="7" end="5"/></blocks>',
    '<blocks><block block="3"/>and more</blocks>',
    '<blocks><block block="3"/></blocks><blocks>',
  ])('is refused when it is not whole or not understood: %j', async (xml) => {
    expect(await codeOf(() => parseEraBlocks(xml))).toBe('ERA_FAILED')
  })

  it('agrees with real metadata of any content', async () => {
    const random = new Random(testSeed('era blocks'))
    const directory = await temporaryDirectory()
    const [xml, metadata] = [join(directory, 'metadata.xml'), join(directory, 'metadata')]
    const blocks = 3000
    const [eras, sets] = [20, [21, 22, 25]]
    const written = Array.from({ length: blocks }, () => random.below(eras + 1))
    const writesets = sets.map((era) => {
      const bits = Array.from({ length: blocks }, () => random.below(8) === 0)
      const lines = bits.map((value, block) => `<bit block="${block}" value="${value}"/>`)
      return { era, bits, text: `<writeset era="${era}" nr_bits="${blocks}">${lines.join('')}</writeset>` }
    })
    const array = written.map((era, block) => `<era block="${block}" era="${era}"/>`).join('')
    await writeFile(
      xml,
      `<superblock uuid="" block_size="128" nr_blocks="${blocks}" current_era="26">
${writesets.map(({ text }) => text).join('')}<era_array>${array}</era_array></superblock>`,
    )
    const file = await open(metadata, 'w')
    await file.truncate(4 * 1024 ** 2)
    await file.close()
    await runSystemTool('era_restore', ['--quiet', '-i', xml, '-o', metadata])
    for (const since of [1, 7, 20, 21, 23, 26]) {
      const expected = written.flatMap((era, block) =>
        era >= since || writesets.some((set) => set.era >= since && set.bits[block]) ? [block] : [],
      )
      const found = parseEraBlocks(await runSystemTool('era_invalidate', ['--written-since', String(since), metadata]))
      expect([...found.values()], `since ${since}`).toEqual(expected)
    }
  })
})

describe('programs of the system', () => {
  it('are named with their package when they are missing, and with what they said when they fail', async () => {
    expect(await codeOf(runSystemTool('no-such-program', []))).toBe('TOOL_MISSING')
    await expect(runSystemTool('era_invalidate', ['--written-since', '1', '/nonexistent'])).rejects.toMatchObject({
      code: 'ERA_FAILED',
      message: expect.stringMatching(/era_invalidate --written-since 1 \/nonexistent: \w/),
    })
  })
})
