import { closeSync, openSync, writeSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { AgentEvent } from '../../../../node/agent/machine/events.ts'
import { readContent } from '../../../../node/agent/release/release-content.ts'
import { SCAN_RUN_BYTES } from '../../../../node/disk/limits.ts'
import { TreeStore } from '../../../../node/store/tree-store.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const BLOCK = 65_536
const random = new Random(72)

/** A disk of two runs, and a plan; the disk is written during the first progress of `phase`. */
async function plan(phase: string | undefined, options: { copy: boolean; force: boolean }) {
  const directory = await temporaryDirectory()
  const disk = join(directory, 'disk.img')
  await writeFile(disk, random.bytes(2 * SCAN_RUN_BYTES))
  const warnings: string[] = []
  let written = false
  const report = (event: AgentEvent): void => {
    if (event.type === 'warning') warnings.push(event.text)
    if (event.type !== 'progress' || event.phase !== phase || written) return
    written = true
    overwrite(disk)
  }
  const parts = { disk, size: 2 * SCAN_RUN_BYTES, blockSize: BLOCK, preserve: RangeSet.empty, force: options.force }
  const trees = new TreeStore(directory)
  const copyTo = options.copy ? join(directory, 'copy.img') : undefined
  return {
    plan: { ...parts, trees, copyTo, report, signal: new AbortController().signal },
    directory,
    warnings,
  }
}

function overwrite(path: string): void {
  const disk = openSync(path, 'r+')
  writeSync(disk, random.bytes(BLOCK), 0, BLOCK, 0)
  closeSync(disk)
}

describe('the content of a release', () => {
  it('is hashed from the disk, or from a copy that equals it', async () => {
    for (const copy of [false, true]) {
      const { plan: asked, warnings } = await plan(undefined, { copy, force: false })
      const content = await readContent(asked)
      const path = await content.keep()
      expect(path).toBe(copy ? asked.copyTo : asked.disk)
      expect(Buffer.compare(await readFile(path), await readFile(asked.disk))).toBe(0)
      expect(warnings).toEqual([])
    }
  })

  it.each([
    ['hash', false, /was written while it was hashed/],
    ['hash', true, /differs in 1 blocks from the copy/],
  ] as const)('is refused if the disk is written meanwhile (%s, copy: %s)', async (phase, copy, message) => {
    const refused = await plan(phase, { copy, force: false })
    await expect(readContent(refused.plan)).rejects.toMatchObject({
      code: 'DISK_CHANGED',
      message: expect.stringMatching(message),
    })
    expect(await readdir(refused.directory)).not.toContain('copy.img.part')
    const forced = await plan(phase, { copy, force: true })
    const content = await readContent(forced.plan)
    expect(forced.warnings).toEqual([expect.stringMatching(message)])
    await content.drop()
  })
})
