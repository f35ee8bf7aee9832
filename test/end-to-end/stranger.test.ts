import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { Stranger } from '../fakes/stranger.ts'
import { BLOCK, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

/** More than the largest window that yamux grows to by itself, 16 MiB. */
const BLOCKS = 320

describe('a peer written after the document', () => {
  const random = new Random(testSeed('stranger'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
  })
  afterAll(() => lab.close())

  it('restores from mesh seed, hears of a member that comes later, and is restored from by mesh restore', async () => {
    const image = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master')
    const stranger = await Stranger.start('stranger')
    const master = await stranger.join(token)
    await joinMachine(lab, 'machine', image, token)

    const restored = await stranger.restore(master)
    expect(restored.image.equals(image)).toBe(true)
    expect(restored.traffic.received).toBeGreaterThan(BLOCKS * BLOCK)

    // Of a member that comes later it hears from the one it is connected to.
    const heardOf = await stranger.listen(master)
    const up = await lab.serve('machine', ['up'])
    await heardOf(lab.address('machine')!)
    await up.stop()

    const served = await stranger.serve()
    await lab.stop('master')
    const [outcome] = await Promise.all([lab.run('machine', ['restore']), stranger.connect(lab.address('machine')!)])
    expect(outcome.stderr).toBe('')
    expect(outcome.result).toMatchObject({
      verified: true,
      blocks: { fetched: BLOCKS },
      peers: [{ name: 'stranger', bad: 0 }],
    })
    expect((await readFile(lab.path('machine.img'))).equals(image)).toBe(true)
    expect(served.sent).toBeGreaterThan(BLOCKS * BLOCK)
  })

  it('is enrolled without a token once somebody has approved its code, and reads nothing but the root before', async () => {
    const master = await lab.serve('master', ['up'])
    const { siteId } = await lab.ok('master', ['machines'])
    const stranger = await Stranger.start('bare')
    const asking = await stranger.enrol(lab.address('master')!, String(siteId), '02:00:5e:10:00:77')
    expect(await asking.ask(true)).toBe(1)
    expect(await stranger.file(asking.master, '1.root.json')).toBeDefined()
    expect(await stranger.file(asking.master, 'timestamp.json')).toBeUndefined()
    await expect(stranger.restore(asking.master)).rejects.toThrow()
    expect((await lab.ok('master', ['machines'])).machines).toMatchObject([{ code: asking.code, name: 'stranger' }])
    await lab.ok('master', ['remove', 'stranger'])
    await lab.ok('master', ['approve', '--code', asking.code])
    expect(await asking.ask(false)).toBe(2)
    expect(await stranger.file(asking.master, 'timestamp.json')).toBeDefined()
    expect(await asking.ask(true)).toBe(3)
    expect((await stranger.restore(asking.master)).traffic.received).toBeGreaterThan(BLOCKS * BLOCK)
    await master.stop()
  })
})
