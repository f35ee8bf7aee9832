import { access, readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { NbdClient } from '../../node/nbd/nbd-client.ts'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'
import { startMachine } from '../support/virtual-machine.ts'

const GRANULE = 4096
const BLOCKS = 100

describe('a restore of a virtual machine’s disk', () => {
  const random = new Random(testSeed('qemu restore'))
  let lab: Lab
  let content: Buffer
  let disk: string
  let image: string

  beforeAll(async () => {
    lab = await Lab.open()
    content = await startMaster(lab, BLOCKS, random)
    const token = await lab.invite('master', 2)
    await joinMachine(lab, 'pc1', content, token)
    disk = lab.path('pc1.img')
    image = lab.path('pc1.qcow2')
    await lab.ok('pc1', ['monitor', disk, '--qemu', image])
    expect(await restore()).toMatchObject({ log: { source: 'qemu', state: 'unknown' }, blocks: { dirty: BLOCKS } })
  })
  afterAll(() => lab.close())

  /** A restore, after which both the disk and what a machine sees of it are the release. */
  async function restore(): Promise<RestoreResult> {
    const receipt = (await lab.ok('pc1', ['restore'])) as unknown as RestoreResult
    expect((await readFile(disk)).equals(content)).toBe(true)
    return receipt
  }

  async function expectSeen(): Promise<void> {
    const machine = await startMachine(image)
    const client = await NbdClient.connect(machine.uri('disk'))
    const seen = Buffer.alloc(content.byteLength)
    await client.read(0, seen)
    expect(seen.equals(content)).toBe(true)
    await client.close()
    await machine.end()
  }

  async function session(granules: readonly number[], end: NodeJS.Signals): Promise<void> {
    const machine = await startMachine(image)
    const client = await NbdClient.connect(machine.uri('disk'))
    for (const granule of granules) await client.write(granule * GRANULE, random.bytes(GRANULE))
    await client.close()
    await machine.end(end)
  }

  it('does nothing when no machine has written', async () => {
    await expectSeen()
    expect(await restore()).toMatchObject({ log: { state: 'clean' }, blocks: { dirty: 0 }, bytes: { received: 0 } })
  })

  it('fetches what machines have written since the last one', async () => {
    const granules = [...new Set(Array.from({ length: 40 }, () => random.below(BLOCKS * 16)))]
    await session(granules.slice(0, 20), 'SIGTERM')
    await session(granules.slice(20), 'SIGTERM')
    expect(await lab.ok('pc1', ['log', 'show'])).toMatchObject({ source: 'qemu', dirty: granules.length })
    const receipt = await restore()
    expect(receipt).toMatchObject({ log: { source: 'qemu', state: 'dirty' }, verified: true })
    expect(receipt.bytes.received).toBe(granules.length * GRANULE)
    await expectSeen()
    expect(await restore()).toMatchObject({ log: { state: 'clean' } })
  })

  it('gives back what a machine has zeroed and given up', async () => {
    const commands = ['write -z 1M 1M', 'discard 3M 2M'].flatMap((command) => ['-c', command])
    await runTool('qemu-io', ['-d', 'unmap', '-f', 'qcow2', ...commands, image])
    expect(await restore()).toMatchObject({ log: { state: 'dirty' }, blocks: { dirty: 48 } })
    await expectSeen()
  })

  it('scans after a machine was killed', async () => {
    await session([7], 'SIGKILL')
    const receipt = await restore()
    expect(receipt.log).toMatchObject({ state: 'unknown', reason: expect.stringContaining('QEMU was killed') })
    expect(receipt).toMatchObject({ blocks: { dirty: 1 }, verified: true })
    await expectSeen()
    expect(await restore()).toMatchObject({ log: { state: 'clean' } })
  })

  it('waits until the machine is shut down, and may be looked at until then', async () => {
    const machine = await startMachine(image)
    const refused = await lab.run('pc1', ['restore'])
    expect(refused.result).toMatchObject({ event: 'error', code: 'DISK_IN_USE' })
    expect(await lab.ok('pc1', ['log', 'show'])).toMatchObject({
      state: 'unknown',
      reason: expect.stringContaining('QEMU is running'),
    })
    expect((await lab.run('pc1', ['log', 'forget'])).result).toMatchObject({ code: 'DISK_IN_USE' })
    await machine.end()
    expect(await restore()).toMatchObject({ log: { state: 'clean' } })
  })

  it('leaves no image behind that nobody would make anew', async () => {
    await lab.ok('pc1', ['log', 'forget'])
    await expect(access(image)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await restore()).toMatchObject({ log: { source: 'scan' } })
  })
})
