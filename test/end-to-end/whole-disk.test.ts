import { open, readFile, truncate, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { hasTool, runTool } from '../../tools/lab/run-tool.ts'
import { attachLoop } from '../support/real-devices.ts'

const MIB = 1024 * 1024
const SIZE = 16 * MIB
const random = new Random(61)
const usable = process.getuid?.() === 0 && (await hasTool('sgdisk'))
if (!usable) console.warn('SKIPPED: whole disks need root and the Debian package gdisk')

describe.skipIf(!usable)('the image of a whole disk', () => {
  let lab: Lab
  let token: string

  beforeAll(async () => {
    lab = await Lab.open()
    await disk('model.img', SIZE, 'the-new-one')
    const file = await open(lab.path('model.img'), 'r+')
    await file.write(random.bytes(2 * MIB), 0, 2 * MIB, 2 * MIB)
    await file.close()
    await lab.serve('master', ['seed', lab.path('model.img')])
    token = await lab.invite('master', 20)
  })
  afterAll(() => lab.close())

  /** A file with a GPT of one partition, which has this name. */
  async function disk(name: string, size: number, partition: string): Promise<string> {
    const path = lab.path(name)
    await writeFile(path, '')
    await truncate(path, size)
    await runTool('sgdisk', ['-n', '1:2048:+8M', '-c', `1:${partition}`, path])
    return path
  }

  const joinArgs = (name: string, path: string): string[] => ['join', token, '--disk', path, '--name', name]
  const tail = async (path: string): Promise<Buffer> => (await readFile(path)).subarray(SIZE)
  const notes = (events: readonly { event: string; text?: unknown }[]): string =>
    events.flatMap(({ event, text }) => (event === 'note' ? [String(text)] : [])).join('\n')

  async function loopOf(context: TestContext, name: string, sectorBytes: number): Promise<string> {
    await writeFile(lab.path(name), random.bytes(SIZE))
    return attachLoop(lab.path(name), context, { sectorBytes })
  }

  it('is refused by a disk with other sectors, at join and at restore, and nothing is written', async (context) => {
    const path = await loopOf(context, 'big-sectors.img', 4096)
    const before = await readFile(lab.path('big-sectors.img'))
    const refused = { event: 'error', code: 'DISK_SECTORS', detail: { path, sectorSize: 4096, needed: 512 } }
    const joined = await lab.run('pc1', joinArgs('pc1', path))
    expect([joined.code, joined.result]).toEqual([EXIT.disk, expect.objectContaining(refused)])
    // The disk is replaced after the machine has joined.
    const small = await loopOf(context, 'small-sectors.img', 512)
    await lab.ok('pc2', joinArgs('pc2', small))
    expect(await lab.ok('pc2', ['restore'])).toMatchObject({ verified: true })
    const config = lab.path('mesh.toml')
    await writeFile(config, `disk = "${path}"\n`)
    const restored = await lab.run('pc2', ['restore', '--config', config, '--accept-new-disk'])
    expect([restored.code, restored.result]).toEqual([EXIT.disk, expect.objectContaining(refused)])
    expect(Buffer.compare(await readFile(lab.path('big-sectors.img')), before)).toBe(0)
  })

  it('on a larger disk: the old backup table at its end goes, the image keeps its own', async (context) => {
    const path = await disk('larger.img', SIZE + 4 * MIB, 'the-old-one')
    const loop = await attachLoop(path, context)
    const joined = await lab.run('pc3', joinArgs('pc3', loop))
    expect([joined.code, notes(joined.events)]).toEqual([0, expect.stringMatching(/larger than the image by 4194304/)])
    expect((await tail(path)).includes(Buffer.from('the-old-one', 'utf16le'))).toBe(true)
    const restored = await lab.run('pc3', ['restore'])
    expect([restored.code, notes(restored.events)]).toEqual([
      0,
      expect.stringMatching(/backup of another partition table \(GPT\) stood at the end of .* at byte 20971008/),
    ])
    const model = await readFile(lab.path('model.img'))
    expect(Buffer.compare((await readFile(path)).subarray(0, SIZE), model)).toBe(0)
    expect((await tail(path)).subarray(-512)).toEqual(Buffer.alloc(512))
    // Only the header went; and nothing is left to be said, or restored.
    const again = await lab.run('pc3', ['restore'])
    expect([again.result, notes(again.events)]).toEqual([
      expect.objectContaining({ verified: true, blocks: expect.objectContaining({ dirty: 0 }) }),
      expect.not.stringMatching(/GPT/),
    ])
    expect(await runTool('sgdisk', ['-p', path]).catch(({ message }: Error) => message)).toMatch(/the-new-one/)
  })

  it('on a larger disk: a backup that sgdisk has moved stays, and its price is the first block', async () => {
    const path = await disk('moved.img', SIZE + 4 * MIB, 'the-old-one')
    await lab.ok('pc4', joinArgs('pc4', path))
    await lab.ok('pc4', ['restore'])
    await runTool('sgdisk', ['-e', path])
    const moved = await tail(path)
    expect(await lab.ok('pc4', ['restore'])).toMatchObject({ verified: true, blocks: { dirty: 1 } })
    expect(Buffer.compare(await tail(path), moved)).toBe(0)
  })
})
