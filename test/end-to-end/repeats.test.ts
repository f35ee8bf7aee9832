import { readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, joinMachine } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const GRANULE = 4096
const BLOCKS = 96
/** Granules: a long one, one that begins within the place another was copied from, one within a single block. */
const REPEATS = [
  { to: 700, from: 37, count: 300 },
  { to: 1100, from: 290, count: 181 },
  { to: 1410, from: 601, count: 9 },
]

interface Receipt extends MeshEvent {
  verified: boolean
  blocks: { dirty: number; local: number; copied: number; fetched: number }
  bytes: { received: number }
}

describe('an image that has content a second time, not a whole number of blocks apart', () => {
  const random = new Random(testSeed('repeats'))
  let lab: Lab
  let image: Buffer
  let token: string

  beforeAll(async () => {
    lab = await Lab.open()
    image = Buffer.from(random.bytes(BLOCKS * BLOCK))
    for (const { to, from, count } of REPEATS) image.copy(image, to * GRANULE, from * GRANULE, (from + count) * GRANULE)
    await writeFile(lab.path('model.img'), image)
    await lab.serve('master', ['seed', lab.path('model.img')])
    token = await lab.invite('master')
  })
  afterAll(() => lab.close())

  const restored = async (machine: string): Promise<Receipt> => {
    const receipt = (await lab.ok(machine, ['restore'])) as Receipt
    expect(receipt.verified).toBe(true)
    expect((await readFile(lab.path(`${machine}.img`))).equals(image)).toBe(true)
    return receipt
  }

  it('crosses the network once', async () => {
    await joinMachine(lab, 'm1', image, token)
    const { blocks, bytes } = await restored('m1')
    const repeated = REPEATS.reduce((sum, { count }) => sum + count, 0) * GRANULE
    // The tree and the list of repeats are a page each.
    expect(bytes.received).toBeGreaterThanOrEqual(image.byteLength - repeated)
    expect(bytes.received).toBeLessThanOrEqual(image.byteLength - repeated + 2 * BLOCK)
    expect(blocks.local + blocks.copied + blocks.fetched).toBe(blocks.dirty)
    expect(blocks.copied).toBeGreaterThan(20)
  })

  it('is restored all the same where the list of repeats is damaged or missing', async () => {
    const trees = lab.path('master', 'trees')
    const [list] = (await readdir(trees)).filter((name) => name.endsWith('.repeats'))
    const path = lab.path('master', 'trees', list!)
    const whole = await readFile(path)
    await joinMachine(lab, 'm2', image, token)
    await truncate(path, 100)
    const { bytes } = await restored('m2')
    expect(bytes.received).toBeGreaterThanOrEqual(image.byteLength)
    await writeFile(path, whole)
  })

  it('is restored from what it has itself after a session that wrote over a repeat', async () => {
    await writeFile(lab.path('m1.img'), Buffer.concat([image.subarray(0, 50 * BLOCK), random.bytes(46 * BLOCK)]))
    const { blocks, bytes } = await restored('m1')
    expect(blocks.dirty).toBe(46)
    const inThem = REPEATS.reduce((sum, { to, count }) => sum + Math.max(0, to + count - Math.max(to, 800)), 0)
    expect(bytes.received).toBeLessThan((46 * 16 - inThem) * GRANULE + BLOCK)
  })
})
