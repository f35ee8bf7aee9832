import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { StagePlan } from '../../../../node/agent/stage/stage-plan.ts'
import { ImageDisk } from '../../../../node/disk/image-disk.ts'
import type { HoldingChange } from '../../../../node/store/block-source.ts'
import { DiskSource } from '../../../../node/store/disk-source.ts'
import { HAVE_DELAY_MS } from '../../../../node/store/limits.ts'
import { Stage } from '../../../../node/store/stage.ts'
import { StagedSource } from '../../../../node/store/staged-source.ts'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'
import { FaultyDevice } from '../../../fakes/faulty-device.ts'
import { getContent } from '../../../support/get-content.ts'
import { leavesOf, storedTree } from '../../../support/stored-tree.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const BLOCK = 4096

/** Blocks by letters; `.` is zeros. The disk may be dirty where `dirty` says. */
async function planFor(before: string, after: string, dirty: readonly number[] = [], capacity = 100) {
  const image = (letters: string): Buffer =>
    Buffer.concat([...letters].map((letter) => Buffer.alloc(BLOCK, letter === '.' ? 0 : letter)))
  const tree = (letters: string) => {
    const content = image(letters)
    return storedTree(leavesOf(content, BLOCK), { size: content.byteLength, blockSize: BLOCK })
  }
  const [from, to] = [await tree(before), await tree(after)]
  const held = new Bitmap(before.length)
  held.setRange(0, before.length)
  for (const index of dirty) held.clear(index)
  const disk = new ImageDisk(new FaultyDevice(image(before)), from.geometry)
  const source = new DiskSource({ disk, tree: from, held })
  const stage = await Stage.open(join(await temporaryDirectory(), 'stage'), BLOCK)
  onTestFinished(() => stage.close())
  const plan = await StagePlan.make({ tree: to, source, stage, capacity })
  const at = (bitmap: Bitmap): number[] => [...bitmap.values()]
  return { plan, source, stage, to, fetch: at(plan.fetch), copy: at(plan.copy), held: at(plan.held), image }
}

describe('the plan of what to stage', () => {
  it('is nothing for the same release, zeros, and what stays on the disk at any place', async () => {
    const same = await planFor('abcd', 'abcd')
    expect(same).toMatchObject({ fetch: [], copy: [], held: [0, 1, 2, 3] })
    const { fetch, copy, held, plan } = await planFor('abcd', 'ab.a')
    expect({ fetch, copy, held }).toEqual({ fetch: [], copy: [], held: [0, 1, 3] })
    expect(plan.wanted).toBe(0)
  })

  it('copies what moves, since its place is written over, and fetches new content once', async () => {
    const { fetch, copy, held, plan } = await planFor('abcdef', 'bacxxy')
    expect({ fetch, copy, held }).toEqual({ fetch: [3, 5], copy: [0, 1], held: [2] })
    expect([...plan.changed.runs()]).toEqual([
      [0, 2],
      [3, 6],
    ])
    expect(plan.wanted).toBe(4)
  })

  it('takes what the session has dirtied, after what changed', async () => {
    const { fetch, copy } = await planFor('abcda', 'xbcda', [0, 1, 2, 3])
    expect({ fetch, copy }).toEqual({ fetch: [0, 1, 2, 3], copy: [] })
    // What fits, in that order.
    const { fetch: fitting, plan } = await planFor('abcda', 'abcdx', [1, 2], 2)
    expect(fitting).toEqual([1, 4])
    expect(plan).toMatchObject({ left: 1, wanted: 3 })
  })

  it('compares releases of different sizes, and takes all of one with other blocks', async () => {
    expect(await planFor('abc', 'abcde')).toMatchObject({ fetch: [3, 4], copy: [], held: [0, 1, 2] })
    expect(await planFor('abcde', 'axc')).toMatchObject({ fetch: [1], copy: [], held: [0, 2] })
  })
})

describe('a staged source', () => {
  it('gives staged blocks and pages, and tells what it gains and what the disk loses', async () => {
    const { plan, source, stage, to, image } = await planFor('abcd', 'axcd')
    const offer = new StagedSource({ tree: to, stage, disk: source, changed: plan.changed, held: plan.held.copy() })
    const told: HoldingChange[] = []
    offer.onChange((change) => told.push(change))
    expect(
      offer.held().equals(
        RangeSet.from([
          [0, 1],
          [2, 4],
        ]),
      ),
    ).toBe(true)
    const x = digestOf(image('x'))
    expect(await getContent(offer, x, { level: 0, index: 1 })).toBeUndefined()
    await stage.add(x, image('x'))
    offer.gained(1)
    source.lost(2)
    // Of the old release only.
    source.lost(1)
    await sleep(3 * HAVE_DELAY_MS)
    expect(
      offer.held().equals(
        RangeSet.from([
          [0, 2],
          [3, 4],
        ]),
      ),
    ).toBe(true)
    expect(told.flatMap(({ gained }) => [...gained.values()])).toEqual([1])
    expect(told.flatMap(({ lost }) => [...lost.values()])).toEqual([2])
    expect(await getContent(offer, x, { level: 0, index: 1 })).toEqual(image('x'))
    expect([await offer.has(x), await offer.has(digestOf(image('a')))]).toEqual([true, false])
    expect(digestOf((await getContent(offer, to.root, { level: 1, index: 0 }))!)).toEqual(Buffer.from(to.root))
    offer.close()
  })
})
