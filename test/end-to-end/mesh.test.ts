import { copyFile, open, readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { testSeed } from '../support/seed.ts'

const BLOCK = 65536
const BLOCKS = 240

/** Incompressible data with zero blocks, repeated blocks and a tail that is no whole block. */
function makeImage(random: Random): Buffer {
  const image = Buffer.alloc(BLOCKS * BLOCK + 12345)
  for (let i = 0; i < BLOCKS; i++) {
    if (i % 10 === 3) continue
    if (i % 10 === 7) image.copy(image, i * BLOCK, (i - 5) * BLOCK, (i - 4) * BLOCK)
    else image.set(random.bytes(BLOCK), i * BLOCK)
  }
  image.set(random.bytes(12345), BLOCKS * BLOCK)
  return image
}

interface Receipt extends MeshEvent {
  verified: boolean
  blocks: { total: number; dirty: number; local: number; zero: number; fetched: number }
  bytes: { read: number; written: number; received: number }
  peers: { id: string; name: string; blocks: number; bytes: number; bad: number }[]
  log: { source: string; state: string }
}

describe('a lab of real processes', () => {
  let lab: Lab
  let image: Buffer
  const random = new Random(testSeed('mesh.test'))
  const machines = ['m1', 'm2', 'm3', 'm4']

  beforeAll(async () => {
    lab = await Lab.open()
    image = makeImage(random)
    await writeFile(lab.path('model.img'), image)
    for (const machine of machines) await writeFile(lab.path(`${machine}.img`), new Uint8Array(image.length))
  })
  afterAll(() => lab.close())

  it('publishes, enrols, provisions at the same time, and restores without the master', async () => {
    const master = await lab.serve('master', ['seed', lab.path('model.img')])
    const published = await master.event('published')
    expect(published).toMatchObject({
      image: 'model',
      release: 1,
      size: image.length,
      blockSize: BLOCK,
      unchanged: false,
    })

    const token = await lab.invite('master')
    // At the same moment, as a class that is switched on.
    const join = (machine: string) =>
      lab.ok(machine, ['join', token, '--disk', lab.path(`${machine}.img`), '--name', machine])
    for (const [i, joined] of (await Promise.all(machines.map(join))).entries())
      expect(joined).toMatchObject({ event: 'joined', name: machines[i], image: 'model' })
    const receipts = (await Promise.all(machines.map((machine) => lab.ok(machine, ['restore'])))) as Receipt[]
    for (const [i, receipt] of receipts.entries()) {
      expect(receipt).toMatchObject({
        event: 'receipt',
        verified: true,
        image: 'model',
        release: 1,
        root: published.root,
      })
      expect(receipt.blocks.total).toBe(BLOCKS + 1)
      // Zero blocks of an empty disk are clean already; repeats are fetched once.
      expect(receipt.blocks.dirty).toBe(BLOCKS + 1 - BLOCKS / 10)
      expect(receipt.blocks).toMatchObject({ local: 0, copied: BLOCKS / 10 })
      expect(receipt.blocks.fetched).toBe(BLOCKS + 1 - (2 * BLOCKS) / 10)
      expect((await readFile(lab.path(`${machines[i]}.img`))).equals(image)).toBe(true)
    }

    const serving = await Promise.all(machines.map((machine) => lab.serve(machine, ['up'])))
    expect((await master.stop()).code).toBe(0)

    // A session: some blocks overwritten in parts, some zeroed, on two machines.
    for (const machine of ['m1', 'm2']) {
      const index = machines.indexOf(machine)
      expect((await serving[index]?.stop())?.code).toBe(0)
      const disk = await open(lab.path(`${machine}.img`), 'r+')
      for (const block of [0, 5, 11, 100, 101, 200]) await disk.write(random.bytes(4096), 0, 4096, block * BLOCK + 8192)
      await disk.write(new Uint8Array(BLOCK), 0, BLOCK, 50 * BLOCK)
      await disk.write(random.bytes(BLOCK), 0, BLOCK, 63 * BLOCK)
      await disk.close()
    }
    const again = (await Promise.all(['m1', 'm2'].map((machine) => lab.ok(machine, ['restore'])))) as Receipt[]
    for (const [i, receipt] of again.entries()) {
      expect(receipt).toMatchObject({ verified: true, blocks: { dirty: 8, zero: 1 } })
      expect(receipt.blocks.fetched + receipt.blocks.local).toBe(7)
      expect(receipt.bytes.received).toBeLessThan(8 * BLOCK + 4096)
      const others = machines.filter((name) => name !== `m${i + 1}`)
      for (const peer of receipt.peers) expect(others).toContain(peer.name)
      expect(receipt.peers.reduce((sum, peer) => sum + peer.blocks, 0)).toBe(receipt.blocks.fetched)
    }
    for (const machine of machines) expect((await readFile(lab.path(`${machine}.img`))).equals(image)).toBe(true)

    expect(await lab.ok('m1', ['verify'])).toMatchObject({ event: 'verify', verified: true, blocks: { different: 0 } })
    const status = await lab.ok('m3', ['status'])
    expect(status).toMatchObject({ running: true, name: 'm3', image: 'model', release: 1, root: published.root })
    expect(await lab.ok('m1', ['status'])).toMatchObject({ running: false, name: 'm1', release: 1 })
  })

  it('lets the others go on without a machine that was removed', async () => {
    const master = await lab.serve('master', ['up'])
    expect(await lab.ok('master', ['remove', 'm4'])).toMatchObject({ event: 'removed', name: 'm4' })
    expect((await lab.run('master', ['remove', 'm4'])).result).toMatchObject({ event: 'error', code: 'NOT_A_MEMBER' })
    const m2 = await lab.serve('m2', ['up'])
    await m2.event('peer')
    let names: string[] = []
    // It learns of the new list from the first peer it meets.
    for (let tries = 0; tries < 50 && (names.length === 0 || names.includes('m4')); tries++) {
      const { peers } = (await lab.ok('m2', ['peers'])) as unknown as { peers: { name: string }[] }
      names = peers.map(({ name }) => name)
    }
    expect(names.toSorted()).toEqual(['m1', 'm3', 'master'])
    // Its name is free again for a machine that takes its place.
    const token = await lab.invite('master')
    await writeFile(lab.path('m5.img'), image)
    await lab.ok('m5', ['join', token, '--disk', lab.path('m5.img'), '--name', 'm4'])
    await Promise.all([master.stop(), m2.stop()])
  })

  it('publishes nothing when the disk is unchanged, and the next release when it changed', async () => {
    const same = await lab.ok('master', ['seed', lab.path('model.img'), '--once'])
    expect(same).toMatchObject({ event: 'published', release: 1, unchanged: true })
    await copyFile(lab.path('model.img'), lab.path('model.bak'))
    const disk = await open(lab.path('model.img'), 'r+')
    await disk.write(random.bytes(100), 0, 100, 1000)
    await disk.close()
    const changed = await lab.ok('master', ['seed', lab.path('model.img'), '--once'])
    expect(changed).toMatchObject({ event: 'published', release: 2, unchanged: false })
  })
})
