import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 64
const CHANGED = [3, 20, 21]

interface Receipt extends MeshEvent {
  readonly release: number
  readonly peers: { readonly name: string; readonly blocks: number }[]
}

describe('two releases of an image', () => {
  let lab: Lab
  const random = new Random(testSeed('releases'))

  beforeAll(async () => {
    lab = await Lab.open()
    const image = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master')
    for (const machine of ['older', 'newer']) await joinMachine(lab, machine, image, token)
  })
  afterAll(() => lab.close())

  it('serve each other where they agree: a machine with the older one spares the master', async () => {
    await lab.ok('older', ['restore'])
    await lab.stop('master')
    await dirty(lab.path('model.img'), CHANGED, random)
    // Of what the machines have in common the master could send a few blocks in this time.
    await lab.serve('master', ['seed', lab.path('model.img'), '--max-upload', '1Mbit'])
    const older = await lab.serve('older', ['up'])
    await older.when(({ event, up, name }) => event === 'peer' && up === true && name === 'master')
    const receipt = (await lab.ok('newer', ['restore'])) as Receipt
    expect(receipt).toMatchObject({ verified: true, release: 2 })
    const from = (name: string): number => receipt.peers.find((peer) => peer.name === name)?.blocks ?? 0
    expect(from('older')).toBeGreaterThan(BLOCKS / 2)
    expect(from('older') + from('master')).toBe(BLOCKS)
    expect((await readFile(lab.path('newer.img'))).equals(await readFile(lab.path('model.img')))).toBe(true)
  })
})
