import { truncateSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { afterAll, describe, expect, it, vi } from 'vitest'
import type { AgentEvent } from '../../../../node/agent/machine/events.ts'
import { OfferedDisk, type OfferedDiskOptions } from '../../../../node/agent/offer/offered-disk.ts'
import { HashPool } from '../../../../node/disk/hash-pool.ts'
import { buildTree } from '../../../../node/store/build-tree.ts'
import { TreeStore } from '../../../../node/store/tree-store.ts'
import { markVerified } from '../../../../node/trust/verified-manifest.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'
import { byteCount } from '../../../../protocol/units.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { testSeed } from '../../../support/seed.ts'
import { makeManifest } from '../../../support/site.ts'
import { useTempDir } from '../../../support/temp-dir.ts'

const BLOCK = 4096
const BLOCKS = 8
const { signal } = new AbortController()

describe('the disk that a master offers', () => {
  const random = new Random(testSeed('offered disk'))
  const dir = useTempDir()
  const pool = new HashPool({ workers: 1 })
  afterAll(() => pool.close())

  it('is watched from before anybody hears of it', async () => {
    const path = dir('disk.img')
    await writeFile(path, random.bytes(BLOCKS * BLOCK))
    await mkdir(dir('trees'))
    const trees = new TreeStore(dir('trees'))
    const size = byteCount(BLOCKS * BLOCK)
    const options = { path, size, blockSize: BLOCK, preserve: RangeSet.empty, pool, trees, signal }
    const { root } = await buildTree({ ...options, progress: () => undefined })
    const manifest = markVerified(makeManifest({ size, blockSize: byteCount(BLOCK), root }))
    const events: AgentEvent[] = []
    const machine = {
      config: { role: 'master' },
      home: { path: (name: string) => dir(name) },
    } as unknown as OfferedDiskOptions['machine']
    const report = (event: AgentEvent): void => {
      events.push(event)
      if (event.type === 'serving') truncateSync(path, 3 * BLOCK)
    }
    await using stack = new AsyncDisposableStack()
    const disk = new OfferedDisk({ machine, node: { hold: () => undefined }, pool, report, signal })
    const held = await disk.open({ manifest, path, whole: true }, stack)
    await vi.waitFor(() => expect(held?.source.heldCount).toBe(0), { timeout: 60_000 })
    expect(events.map(({ type }) => type)).toEqual(['serving', 'warning'])
    expect(events[1]).toMatchObject({ text: expect.stringMatching(/has become shorter than the 32768 bytes/) })
  })
})
