import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { settleParts } from '../../node/agent/mesh/settle.ts'
import { readDisk } from '../../node/disk/read-disk.ts'
import { StateDirectory } from '../../node/state/state-directory.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 24
/** Blocks of the second image that are in the first one, too. */
const SHARED = 10
const PART = 'partitions/4'

describe('a machine with a further partition', { timeout: 240_000 }, () => {
  const random = new Random(testSeed('machine parts'))
  let lab: Lab
  let windows: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    windows = Buffer.concat([random.bytes((BLOCKS - SHARED) * BLOCK), image.subarray(0, SHARED * BLOCK)])
    await writeFile(lab.path('windows.img'), windows)
    await lab.ok('master', ['seed', lab.path('windows.img'), '--image', 'windows'])
    await join('pc1', 'model', image.byteLength)
    await lab.ok('pc1', ['restore'])
    const disk = lab.path('windows-disk.img')
    await writeFile(disk, new Uint8Array(windows.byteLength))
    const state = await StateDirectory.open(lab.path('pc1'), { create: false })
    const identity = await readDisk(disk)
    await settleParts(state, [{ number: 4, image: 'windows', isSystem: true, disk, identity }]).finally(() =>
      state.close(),
    )
  })
  afterAll(() => lab.close())

  async function join(name: string, image: string, bytes: number): Promise<void> {
    await writeFile(lab.path(`${name}.img`), new Uint8Array(bytes))
    const options = ['--disk', lab.path(`${name}.img`), '--name', name, '--image', image]
    await lab.ok(name, ['join', await lab.invite('master'), ...options])
  }

  it('restores it as the same machine, with one sequence of receipts', async () => {
    const { result, stderr, code } = await lab.run(`pc1/${PART}`, ['restore'])
    expect(code, stderr).toBe(0)
    expect(result).toMatchObject({ image: 'windows', verified: true, blocks: { local: SHARED } })
    expect(await readFile(lab.path('windows-disk.img'))).toEqual(windows)
    const { receipts } = (await lab.ok('pc1', ['receipts'])) as unknown as {
      receipts: { image: string; number: number; machine: string }[]
    }
    const told = receipts.map(({ image, number, machine }) => `${machine} ${number} ${image}`)
    expect(told.sort()).toEqual(['pc1 1 model', 'pc1 2 windows'])
  })

  it('serves it beside the first one, and does one thing at a time', async () => {
    const up = await lab.serve('pc1', ['up'])
    await up.when(({ event, image }) => event === 'serving' && image === 'windows')
    const { result } = await lab.run(`pc1/${PART}`, ['restore'])
    expect(result).toMatchObject({ code: 'STATE_IN_USE' })
    // The master has lost the content of that image.
    await lab.stop('master')
    await writeFile(lab.path('windows.img'), windows.subarray(BLOCK))
    await lab.serve('master', ['seed', lab.path('model.img'), '--image', 'model'])
    await join('pc2', 'windows', windows.byteLength)
    await up.when(({ event, up: isUp, name }) => event === 'peer' && isUp === true && name === 'master')
    const { peers } = (await lab.ok('pc2', ['restore'])) as unknown as { peers: { name: string; blocks: number }[] }
    // What is in the first image, too, the master has.
    expect(peers.find(({ name }) => name === 'pc1')?.blocks).toBeGreaterThanOrEqual(BLOCKS - SHARED)
    expect(await readFile(lab.path('pc2.img'))).toEqual(windows)
    await up.stop()
  })
})
