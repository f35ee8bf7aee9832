import { open, readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 32

describe('a disk that another program has open for writing', { timeout: 120_000 }, () => {
  const random = new Random(testSeed('disk in use'))
  let lab: Lab
  let image: Buffer
  const disk = (): string => lab.path('pc1.img')

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'pc1', image, await lab.invite('master'))
    await lab.ok('pc1', ['restore'])
  })
  afterAll(() => lab.close())

  it('is neither restored, nor joined with, nor published, and the program is named', async () => {
    await dirty(disk(), [1, 2], random)
    const before = await readFile(disk())
    const token = await lab.invite('master')
    await using _writer = await open(disk(), 'r+')
    for (const [machine, args] of [
      ['pc1', ['restore']],
      ['pc2', ['join', token, '--disk', disk()]],
      ['boss2', ['seed', disk(), '--once']],
    ] as const) {
      const refused = await lab.run(machine, args)
      expect(refused, args[0]).toMatchObject({ code: EXIT.disk, result: { event: 'error', code: 'DISK_IN_USE' } })
      expect(refused.result?.message).toMatch(new RegExp(`\\(process ${process.pid}\\) has it open for writing$`))
    }
    expect((await readFile(disk())).equals(before)).toBe(true)
  })

  it('is not called restored if the program came during the restore; the next restore reads the whole disk', async () => {
    await dirty(disk(), [3], random)
    await lab.stop('master')
    const restoring = await lab.start('pc1', ['restore', '--wait', '60s'])
    await restoring.event('listening')
    const writer = await open(disk(), 'r+')
    await lab.serve('master', ['seed', lab.path('model.img')])
    expect(await restoring.exited).toMatchObject({ code: EXIT.disk, result: { event: 'error', code: 'DISK_IN_USE' } })
    await writer.close()
    const again = await lab.ok('pc1', ['restore'])
    expect(again).toMatchObject({ event: 'receipt', verified: true, log: { source: 'scan' } })
    expect((await readFile(disk())).equals(image)).toBe(true)
  })
})
