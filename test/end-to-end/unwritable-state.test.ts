import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { dirty, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const run = promisify(execFile)
const BLOCKS = 32
const canMount = await run('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'none', '/tmp']).then(
  () => true,
  () => false,
)
if (!canMount) console.warn('SKIPPED: needs to mount file systems (root)')

describe.skipIf(!canMount)('a state directory that cannot be written', () => {
  const random = new Random(testSeed('unwritable state'))
  let lab: Lab
  let image: Buffer

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    await mkdir(lab.path('pc1'))
    await run('mount', ['-t', 'tmpfs', '-o', 'size=3M', 'none', lab.path('pc1')])
    await joinMachine(lab, 'pc1', image, await lab.invite('master'))
    await lab.ok('pc1', ['restore'])
  })
  afterAll(async () => {
    await run('umount', [lab.path('pc1')])
    await lab.close()
  })

  const soil = (): Promise<void> => dirty(lab.path('pc1.img'), [3, 7], random)
  const isRestored = async (): Promise<boolean> => (await readFile(lab.path('pc1.img'))).equals(image)

  const warnings = ({ events }: { events: readonly MeshEvent[] }): string =>
    events.map(({ event, text }) => (event === 'warning' ? text : '')).join('; ')

  it('because it is read-only: a clean disk is told clean, status and receipts answer, nothing is restored', async () => {
    await run('mount', ['-o', 'remount,ro', lab.path('pc1')])
    const clean = await lab.run('pc1', ['restore'])
    expect(clean.code, clean.stderr).toBe(0)
    expect(clean.result).toMatchObject({ event: 'receipt', verified: true, blocks: { dirty: 0 } })
    expect(warnings(clean)).toMatch(/its file system is read-only; nothing of this restore is kept there/)
    expect((await lab.run('pc1', ['status'])).result).toMatchObject({
      event: 'status',
      lastRestore: { verified: true },
    })
    const { receipts } = (await lab.run('pc1', ['receipts'])).result as unknown as { receipts: unknown[] }
    expect(receipts).toHaveLength(1)

    await soil()
    const before = await readFile(lab.path('pc1.img'))
    const refused = await lab.run('pc1', ['restore'])
    expect(refused).toMatchObject({ code: EXIT.state, result: { event: 'error', code: 'STATE_UNWRITABLE' } })
    expect(String(refused.result?.message)).toMatch(/is not restored: .* its file system is read-only$/)
    expect((await readFile(lab.path('pc1.img'))).equals(before)).toBe(true)
    await run('mount', ['-o', 'remount,rw', lab.path('pc1')])
  })

  it('because it is full: the disk is restored all the same, unless a log would have to be kept', async () => {
    await soil()
    await writeFile(lab.path('pc1', 'fill'), new Uint8Array(3 * 1024 * 1024)).catch(() => undefined)
    const restored = await lab.run('pc1', ['restore'])
    expect(restored.code, restored.stderr).toBe(0)
    expect(restored.result).toMatchObject({ event: 'receipt', verified: true, blocks: { dirty: 2 } })
    expect(warnings(restored)).toContain('no space left')
    expect(await isRestored()).toBe(true)
    expect((await lab.run('pc1', ['status'])).result).toMatchObject({ event: 'status', name: 'pc1' })

    // As if a monitor had been set up.
    await run('rm', [lab.path('pc1', 'fill')])
    await mkdir(lab.path('pc1', 'write-log'))
    const config = { source: 'nbd', storage: lab.path('pc1', 'write-log/bitmap') }
    await writeFile(lab.path('pc1', 'write-log/config.json'), JSON.stringify(config))
    await writeFile(lab.path('pc1', 'fill'), new Uint8Array(3 * 1024 * 1024)).catch(() => undefined)
    await soil()
    const refused = await lab.run('pc1', ['restore'])
    expect(refused).toMatchObject({ code: EXIT.disk, result: { event: 'error', code: 'DISK_FULL' } })
    expect(await isRestored()).toBe(false)
  })
})
