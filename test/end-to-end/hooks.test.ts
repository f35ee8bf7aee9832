import { chmod, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { Lab, type MeshEvent, type MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { hasTool, runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, joinMachine, startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 64
const HAS_QEMU_IO = await hasTool('qemu-io')
if (!HAS_QEMU_IO) console.warn('SKIPPED: needs qemu-io')

describe.skipIf(!HAS_QEMU_IO)('hooks after a restore', () => {
  let lab: Lab
  let image: Buffer
  let disk: string

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, new Random(testSeed('hooks')))
    await joinMachine(lab, 'm1', image, await lab.invite('master'))
    disk = lab.path('m1.img')
    await mkdir(lab.path('hooks'))
  })
  afterEach(() => lab.stop('m1'))
  afterAll(() => lab.close())

  async function hook(name: string, script: string): Promise<void> {
    await writeFile(lab.path('hooks', name), `#!/bin/sh\nset -e\n${script}\n`)
    await chmod(lab.path('hooks', name), 0o755)
  }
  const clearHooks = async (): Promise<void> => {
    await rm(lab.path('hooks'), { recursive: true })
    await mkdir(lab.path('hooks'))
  }
  const marks = (): Promise<string> => readFile(lab.path('marks'), 'utf8').catch(() => '')
  const hooksOf = (process: MeshProcess): MeshEvent[] => process.events.filter(({ event }) => event === 'hook')
  const withHooks = (): string[] => ['--hooks', lab.path('hooks')]
  const monitor = (): Promise<MeshProcess> =>
    lab.start('m1', ['monitor', '--nbd', `unix:${lab.path('s')}`, ...withHooks()])
  /** Blocks in which the disk is not the image. */
  async function different(): Promise<number[]> {
    const now = await readFile(disk)
    const wrong = (block: number): boolean =>
      !now.subarray(block * BLOCK, (block + 1) * BLOCK).equals(image.subarray(block * BLOCK, (block + 1) * BLOCK))
    return Array.from({ length: BLOCKS }, (_, block) => block).filter(wrong)
  }

  it('without a log run at the end of the restore, on the disk itself', async () => {
    await hook('10-name', `printf pc07 | dd of="$MESH_DEVICE" bs=${BLOCK} seek=5 conv=notrunc status=none`)
    await hook('20-tell', `echo "$MESH_MACHINE $MESH_IMAGE $MESH_RELEASE $MESH_DEVICE"; cat "$MESH_RECEIPT"`)
    const outcome = await lab.run('m1', ['restore', ...withHooks()])
    expect(outcome.code, outcome.stderr).toBe(0)
    expect(outcome.result).toMatchObject({ event: 'receipt', verified: true, machine: 'm1' })
    const [first, second] = outcome.events.filter(({ event }) => event === 'hook')
    expect(first).toMatchObject({ name: '10-name', ok: true, output: '' })
    const [line, receipt] = String(second?.output).split('\n')
    expect(line).toBe(`m1 model 1 ${disk}`)
    expect(JSON.parse(receipt ?? '')).toEqual(outcome.result)
    expect((await readFile(disk)).subarray(5 * BLOCK, 5 * BLOCK + 4).toString()).toBe('pc07')
    expect(await different()).toEqual([5])
    // The next restore undoes what they did, and they do it again.
    expect(await lab.ok('m1', ['restore', ...withHooks()])).toMatchObject({ blocks: { dirty: 1 } })
    expect(await different()).toEqual([5])
  })

  it('with a log run through the monitor, before others can write, once a restore; the next restore undoes them without a scan', async () => {
    await clearHooks()
    // The log begins with this restore.
    await (await monitor()).event('monitoring').then(() => lab.stop('m1'))
    const begun = await lab.run('m1', ['restore', ...withHooks()])
    expect(begun.result).toMatchObject({ verified: true, log: { source: 'nbd' } })
    expect(begun.events.filter(({ event }) => event === 'hook')).toEqual([])

    await hook('10-name', `qemu-io -f raw -c "write -P 7 1M 4k" -c "write -P 8 3M 70k" "$MESH_NBD_URI" >&2`)
    await hook('20-count', `echo ran >> ${lab.path('marks')}`)
    const first = await monitor()
    expect(await first.event('monitoring')).toMatchObject({ state: 'dirty', dirty: 1 + 18 })
    expect(hooksOf(first)).toMatchObject([
      { name: '10-name', ok: true },
      { name: '20-count', ok: true },
    ])
    expect(await different()).toEqual([16, 48, 49])
    expect((await first.stop()).result).toMatchObject({ event: 'stopped', hooks: { ran: ['10-name', '20-count'] } })

    const again = await monitor()
    await again.event('monitoring')
    expect((await again.stop()).code).toBe(0)
    expect(hooksOf(again)).toEqual([])
    expect(await marks()).toBe('ran\n')

    const restored = await lab.ok('m1', ['restore', ...withHooks()])
    expect(restored).toMatchObject({ verified: true, log: { source: 'nbd', state: 'dirty' }, blocks: { dirty: 3 } })
    expect(restored.bytes).toMatchObject({ written: 19 * 4096 })
    expect(await different()).toEqual([])
    const next = await monitor()
    await next.event('monitoring')
    await next.stop()
    expect(await marks()).toBe('ran\nran\n')
    expect(await different()).toEqual([16, 48, 49])
  })

  it('keep all other clients waiting until they have ended', async () => {
    await clearHooks()
    await hook('1', `touch ${lab.path('started')}; while [ ! -e ${lab.path('go')} ]; do sleep 0.05; done`)
    await lab.ok('m1', ['restore'])
    const running = await monitor()
    await present(lab.path('started'))
    const client = runTool('qemu-io', ['-f', 'raw', '-c', 'read 0 4k', `nbd+unix:///?socket=${lab.path('s')}`])
    let served = false
    void client.then(() => {
      served = true
    })
    await sleep(300)
    expect([served, running.events.some(({ event }) => event === 'monitoring')]).toEqual([false, false])
    await writeFile(lab.path('go'), '')
    await running.event('monitoring')
    await client
    await running.stop()
  })

  it('run again from the first if the monitor was killed, or stopped, before the last had ended', async () => {
    await clearHooks()
    await rm(lab.path('marks'), { force: true })
    await hook('1-first', `echo first >> ${lab.path('marks')}`)
    await hook(
      '2-waits',
      `echo $$ > ${lab.path('pid')}; echo waits >> ${lab.path('marks')}; [ -e ${lab.path('enough')} ] || exec sleep 600`,
    )
    await lab.ok('m1', ['restore'])
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      const killed = await monitor()
      while (!(await marks()).endsWith('waits\n')) await sleep(20)
      const outcome = await killed.stop(signal)
      if (signal === 'SIGTERM') expect([outcome.code, outcome.result?.code]).toEqual([EXIT.interrupted, 'INTERRUPTED'])
      // Nobody is left to end what a killed monitor has started; a service manager would.
      if (signal === 'SIGKILL') process.kill(Number(await readFile(lab.path('pid'), 'utf8')))
      await writeFile(lab.path('marks'), '')
    }
    await writeFile(lab.path('enough'), '')
    const whole = await monitor()
    await whole.event('monitoring')
    await whole.stop()
    expect(await marks()).toBe('first\nwaits\n')
  })

  it('that fail are reported with an exit code of their own; the others run, the disk is served, all run again', async () => {
    await clearHooks()
    await rm(lab.path('marks'), { force: true })
    await hook('1-fails', 'echo no domain; exit 4')
    await hook('2-runs', `echo ran >> ${lab.path('marks')}`)
    await hook('3-hangs', 'sleep 600')
    await lab.ok('m1', ['restore'])
    for (let times = 1; times <= 2; times++) {
      const running = await lab.start('m1', [
        ...['monitor', '--nbd', `unix:${lab.path('s')}`, ...withHooks()],
        ...['--hook-timeout', '1s'],
      ])
      await running.event('monitoring')
      expect(hooksOf(running)).toMatchObject([
        { name: '1-fails', ok: false, why: 'exit code 4', output: 'no domain' },
        { name: '2-runs', ok: true },
        { name: '3-hangs', ok: false, why: 'no end within 1 s' },
      ])
      const outcome = await running.stop()
      expect(outcome.code).toBe(EXIT.hook)
      expect(outcome.result).toMatchObject({ event: 'error', code: 'HOOK_FAILED' })
      expect(outcome.stderr).toContain('2 of 3 hooks failed: 1-fails, 3-hangs')
      expect(await marks()).toBe('ran\n'.repeat(times))
    }
  })

  it('that others can write are not run; the restore is done all the same', async () => {
    await clearHooks()
    await lab.ok('m1', ['log', 'forget'])
    await hook('1', `echo evil >> ${lab.path('evil')}`)
    await chmod(lab.path('hooks', '1'), 0o777)
    const file = await open(disk, 'r+')
    await file.write(Buffer.from('dirty'), 0, 5, 9 * BLOCK)
    await file.close()
    const outcome = await lab.run('m1', ['restore', ...withHooks()])
    expect([outcome.code, outcome.result?.code]).toEqual([EXIT.hook, 'HOOK_UNSAFE'])
    expect(outcome.events).toContainEqual(expect.objectContaining({ event: 'receipt', verified: true }))
    expect(outcome.stderr).toMatch(/hooks\/1 can be written by others \(mode 777\)/)
    expect(await different()).toEqual([])
    await expect(readFile(lab.path('evil'))).rejects.toThrow(/ENOENT/)
    const missing = await lab.run('m1', ['restore', '--hooks', lab.path('none')])
    expect([missing.code, missing.result?.code]).toEqual([EXIT.hook, 'HOOK_FAILED'])
  })
})

async function present(path: string): Promise<void> {
  while (
    !(await readFile(path).then(
      () => true,
      () => false,
    ))
  )
    await sleep(20)
}
