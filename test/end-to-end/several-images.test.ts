import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Status } from '../../node/agent/answer/status.ts'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 32
/** Blocks of the second image that are in the first one, too, at other places. */
const SHARED = 20

describe('two images of one site', { timeout: 240_000 }, () => {
  const random = new Random(testSeed('several images'))
  let lab: Lab
  let other: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'pc1', image, await lab.invite('master'))
    await lab.ok('pc1', ['restore'])
    other = Buffer.concat([random.bytes((BLOCKS - SHARED) * BLOCK), image.subarray(3 * BLOCK, (3 + SHARED) * BLOCK)])
    await writeFile(lab.path('other.img'), other)
    await lab.stop('master')
    await lab.serve('master', ['seed', lab.path('other.img'), '--image', 'other', '--max-upload', '1Mbit'])
  })
  afterAll(() => lab.close())

  /** A machine, or a second disk of one, that is to have the second image. */
  async function join(name: string): Promise<void> {
    await writeFile(lab.path(`${name}.img`), new Uint8Array(other.byteLength))
    const token = await lab.invite('master')
    await lab.ok(name, ['join', token, '--disk', lab.path(`${name}.img`), '--name', name, '--image', 'other'])
  }

  async function restored(name: string, result: MeshEvent): Promise<RestoreResult> {
    expect(await readFile(lab.path(`${name}.img`))).toEqual(other)
    expect(result).toMatchObject({ verified: true, image: 'other', release: 1, blocks: { dirty: BLOCKS } })
    return result as unknown as RestoreResult
  }

  it('share content on one computer: it is copied from the other disk, whatever was written there', async () => {
    await join('pc1-other')
    const disk = await readFile(lab.path('pc1.img'))
    // One of the common blocks is not what it was.
    disk.write('dirty', 5 * BLOCK)
    await writeFile(lab.path('pc1.img'), disk)
    const beside = ['--beside', lab.path('nowhere'), '--beside', lab.path('pc1')]
    const { result, stderr, code } = await lab.run('pc1-other', ['restore', ...beside])
    expect(code, stderr).toBe(0)
    const { blocks } = await restored('pc1-other', result!)
    expect(blocks).toMatchObject({ local: SHARED - 1, fetched: BLOCKS - SHARED + 1 })
    // It is remembered.
    const machine = JSON.parse(await readFile(lab.path('pc1-other', 'machine.json'), 'utf8')) as { beside: string[] }
    expect(machine.beside).toEqual([lab.path('nowhere'), lab.path('pc1')])
  })

  it('share content among machines: one with either spares the master', async () => {
    await join('pc2')
    const up = await lab.serve('pc1', ['up'])
    await up.when(({ event, up: isUp, name }) => event === 'peer' && isUp === true && name === 'master')
    const { peers } = await restored('pc2', await lab.ok('pc2', ['restore']))
    expect(peers.find(({ name }) => name === 'pc1')?.blocks ?? 0).toBeGreaterThan(SHARED / 2)
    await up.stop()
  })

  it('are served by one master side by side, a third one while it serves, and all of them after a new start', async () => {
    await lab.stop('pc1')
    const named = async (): Promise<string[]> => {
      const { image, others } = (await lab.ok('master', ['status'])) as unknown as Status
      return [image!, ...(others ?? []).map((one) => `${one.image} ${one.blocks.held}`)]
    }
    expect(await named()).toEqual(['other', `model ${BLOCKS}`])
    const third = Buffer.from(random.bytes(8 * BLOCK))
    await writeFile(lab.path('third.img'), third)
    const dry = await lab.ok('master', ['seed', lab.path('third.img'), '--image', 'third', '--dry-run'])
    expect(dry).toMatchObject({ event: 'would-publish', release: 1 })
    const seed = await lab.run('master', ['seed', lab.path('third.img'), '--image', 'third'])
    expect(seed, seed.stderr).toMatchObject({ code: 0, result: { event: 'published', image: 'third', release: 1 } })
    expect(await named()).toEqual(['other', `model ${BLOCKS}`, 'third 8'])
    const again = await lab.run('master', ['seed', lab.path('third.img')])
    expect(again.result).toMatchObject({
      code: 'STATE_IN_USE',
      message: expect.stringMatching(/serves image third/) as string,
    })

    await lab.stop('master')
    await writeFile(lab.path('other.img'), other.subarray(BLOCK))
    const up = await lab.serve('master', ['up'])
    const warned = await up.when(({ event, text }) => event === 'warning' && String(text).includes('image other'))
    expect(warned?.text).toMatch(/^image other is not offered: .*other\.img/)
    expect(await named()).toEqual(['third', `model ${BLOCKS}`])
    const token = await lab.invite('master', 2)
    for (const [name, image, content] of [
      ['pc3', 'model', await readFile(lab.path('model.img'))],
      ['pc4', 'third', third],
    ] as const) {
      await writeFile(lab.path(`${name}.img`), new Uint8Array(content.byteLength))
      await lab.ok(name, ['join', token, '--disk', lab.path(`${name}.img`), '--name', name, '--image', image])
      const { peers } = (await lab.ok(name, ['restore'])) as unknown as RestoreResult
      expect(peers.map((peer) => peer.name)).toEqual(['master'])
      expect(await readFile(lab.path(`${name}.img`))).toEqual(content)
    }
    await lab.stop('master')
    // Which image the disk has is known.
    await dirty(lab.path('model.img'), [1], random)
    expect(await lab.ok('master', ['seed', lab.path('model.img'), '--once'])).toMatchObject({
      image: 'model',
      release: 2,
    })
  })
})
