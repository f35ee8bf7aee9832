import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, type TestContext } from 'vitest'
import { type LogConfig, readLogConfig } from '../../../../node/agent/log/log-config.ts'
import { type EraMonitored, monitorEra } from '../../../../node/agent/log/monitor-era.ts'
import { openTracker } from '../../../../node/agent/log/open-log.ts'
import { writeReceiptFile } from '../../../../node/agent/machine/hooks.ts'
import type { RestoreResult } from '../../../../node/restore/restore-result.ts'
import { StateDirectory } from '../../../../node/state/state-directory.ts'
import { runSystemTool } from '../../../../node/writelog/system-tool.ts'
import { MeshProcess } from '../../../../tools/lab/local-lab.ts'
import { ScriptedEra } from '../../../fakes/scripted-era.ts'
import { codeOf } from '../../../support/error-code.ts'
import { attachLoop } from '../../../support/real-devices.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const DISK_BYTES = 8 * 1024 ** 2
type EraConfig = Extract<LogConfig, { source: 'dm-era' }>

/** A machine with a disk that is a real block device, and a kernel that claims to have dm-era. */
class Bench {
  readonly kernel = new ScriptedEra()
  readonly notes: string[] = []
  /** What hooks have printed. */
  readonly outputs: string[] = []
  readonly stateDir: string
  readonly disk: string
  readonly #runDir: string

  private constructor(runDir: string, stateDir: string, disk: string) {
    this.#runDir = runDir
    this.stateDir = stateDir
    this.disk = disk
  }

  static async set(context: TestContext): Promise<Bench> {
    const directory = await temporaryDirectory()
    const stateDir = join(directory, 'state')
    const disk = await Bench.device(directory, 'disk', DISK_BYTES, context)
    const state = await StateDirectory.open(stateDir, { create: true, readOnly: false })
    const machine = {
      site: 's',
      siteId: '00'.repeat(32),
      name: 'pc',
      id: '',
      role: 'machine',
      listen: [],
      disk,
    } as const
    await state.saveMachine(machine)
    await state.close()
    const bench = new Bench(directory, stateDir, disk)
    onTestFinished(() => bench.reboot())
    return bench
  }

  static async device(directory: string, name: string, size: number, context: TestContext): Promise<string> {
    const file = await open(join(directory, name), 'w')
    await file.truncate(size)
    await file.close()
    return attachLoop(join(directory, name), context)
  }

  device(name: string, size: number, context: TestContext): Promise<string> {
    return Bench.device(this.#runDir, name, size, context)
  }

  async monitor(
    options: { name?: string; metadata?: string; disk?: string; hooks?: { directory: string } } = {},
  ): Promise<EraMonitored> {
    return monitorEra({
      stateDir: this.stateDir,
      disk: this.disk,
      name: 'lab',
      ...options,
      report: (event) => {
        if ('text' in event) this.notes.push(event.text)
        if (event.type === 'hook') this.outputs.push(event.output)
      },
      signal: new AbortController().signal,
      system: this.kernel.system(this.#runDir),
    })
  }

  /** As a restore leaves it. */
  async restored(release: number): Promise<void> {
    await writeReceiptFile(this.stateDir, { machine: 'pc', image: 'win', release } as RestoreResult)
  }

  /** Nothing is active any more, and nothing holds the metadata file. */
  async reboot(): Promise<void> {
    this.kernel.crash()
    await this.#detachMetadata()
  }

  async #detachMetadata(): Promise<void> {
    const found = await runSystemTool('losetup', ['--noheadings', '--output', 'NAME', '-j', this.metadata])
    for (const loop of found.split('\n').filter((line) => line !== ''))
      await runSystemTool('losetup', ['-d', loop.trim()])
  }

  get metadata(): string {
    return join(this.stateDir, 'write-log', 'era-metadata')
  }

  async config(): Promise<EraConfig> {
    return (await readLogConfig(this.stateDir)) as EraConfig
  }
}

describe('mesh monitor --era', () => {
  it('sets the device up with metadata of its own, and says what to mount', async (context) => {
    const bench = await Bench.set(context)
    const result = await bench.monitor()
    const { first, last, ...config } = await bench.config()
    expect(config).toEqual({
      source: 'dm-era',
      name: 'lab',
      metadata: bench.metadata,
      storage: join(bench.stateDir, 'write-log', 'bitmap'),
    })
    expect(first).toBeGreaterThan(65_535)
    expect(last).toBe(first + 1)
    expect(result).toMatchObject({ device: '/dev/mapper/lab', disk: bench.disk, era: last, state: 'unknown' })
    expect(bench.notes).toEqual([expect.stringContaining('no restore has been made under this log yet')])
    expect((await stat(bench.metadata)).size).toBe(4 * 1024 ** 2 + 24 * 128)
    const dump = await runSystemTool('era_dump', [bench.metadata])
    expect(dump).toContain(`block_size="128" nr_blocks="1" current_era="${first}"`)
    expect(bench.kernel.devices.get('lab')?.discardMax).toBe(0)
  })

  it('runs hooks on the device once for each receipt, when it is there', async (context) => {
    const bench = await Bench.set(context)
    const directory = join(await temporaryDirectory(), 'hooks')
    await mkdir(directory)
    await writeFile(join(directory, 'name'), '#!/bin/sh\necho "$MESH_DEVICE $MESH_RELEASE"\n', { mode: 0o755 })
    const hooks = { directory }
    expect(await bench.monitor({ hooks })).not.toHaveProperty('hooks')
    expect(bench.notes).toContain('hooks run after the first restore')
    for (const release of [1, 2]) {
      await bench.restored(release)
      bench.kernel.ran.length = 0
      expect(await bench.monitor({ hooks })).toMatchObject({ hooks: { ran: ['name'], failed: [] } })
      expect(bench.outputs).toEqual([`/dev/mapper/lab ${release}`])
      // What they wrote is durable before it is recorded that they have ended.
      expect(bench.kernel.ran.at(-1)).toBe('sync /dev/mapper/lab')
      await bench.reboot()
      expect(await bench.monitor({ hooks })).not.toHaveProperty('hooks')
      expect(bench.outputs.splice(0)).toHaveLength(1)
    }
    await bench.restored(3)
    bench.kernel.broken.set('sync', 'Input/output error')
    expect(await codeOf(bench.monitor({ hooks }))).toBe('ERA_FAILED')
    bench.kernel.broken.clear()
    expect(await bench.monitor({ hooks })).toMatchObject({ hooks: { ran: ['name'] } })
  })

  it('goes on with the same metadata at the next boot, and when it is run twice', async (context) => {
    const bench = await Bench.set(context)
    await bench.monitor()
    const { first, last } = await bench.config()
    await bench.monitor()
    expect(await bench.config()).toMatchObject({ first, last })
    await bench.reboot()
    await bench.monitor()
    expect(await bench.config()).toMatchObject({ first, last: last + 1 })
  })

  it.for<[string, RegExp, (bench: Bench) => unknown]>([
    ['are gone', /holds no metadata/, (bench) => writeFile(bench.metadata, Buffer.alloc(4 * 1024 ** 2 + 24 * 128))],
    ['have counted less than before', /had counted/, ({ kernel }) => Object.assign(kernel, { era: kernel.era - 5 })],
    ['are others', /had counted/, ({ kernel }) => Object.assign(kernel, { era: kernel.era + 10 ** 6 })],
  ])('begins anew, and says so, when the metadata %s', async ([what, reason, change], context) => {
    const bench = await Bench.set(context)
    await bench.monitor()
    const { first } = await bench.config()
    await bench.reboot()
    if (what === 'are gone') bench.kernel.era = 0
    await change(bench)
    const result = await bench.monitor()
    const renewed = await bench.config()
    expect(renewed.first).not.toBe(first)
    expect(bench.notes.at(-1)).toMatch(reason)
    expect(bench.notes.at(-1)).toContain('the log begins anew')
    expect(result.era).toBe(renewed.last)
    // The bitmap may name an era of the metadata that are gone; it goes with no other ones.
    const tracker = await openTracker(renewed, bench.disk)
    expect(await tracker?.changedSince(`${first}.${first + 1}.${DISK_BYTES / 512}`)).toMatchObject({
      state: 'unknown',
      reason: expect.stringContaining('other metadata'),
    })
  })

  it('refuses a name that is taken', async (context) => {
    const bench = await Bench.set(context)
    bench.kernel.devices.set('lab', { number: '253:9', table: '0 8 linear 7:0 0', suspended: false, discardMax: 0 })
    expect(await codeOf(bench.monitor())).toBe('ERA_NAME_TAKEN')
  })

  it('refuses to overwrite what is no metadata, or to use too small a device', async (context) => {
    const bench = await Bench.set(context)
    const file = join(bench.stateDir, 'precious')
    await writeFile(file, 'precious')
    expect(await codeOf(bench.monitor({ metadata: file }))).toBe('ERA_METADATA_INVALID')
    expect(await codeOf(bench.monitor({ metadata: file }))).toBe('ERA_METADATA_INVALID')
    expect(await codeOf(bench.monitor({ metadata: '/dev/no-such-partition' }))).toBe('DISK_MISSING')
    expect(await readFile(file, 'utf8')).toBe('precious')
    const small = await bench.device('small', 1024 ** 2, context)
    expect(await codeOf(bench.monitor({ metadata: small }))).toBe('ERA_METADATA_INVALID')
    const used = await bench.device('used', 8 * 1024 ** 2, context)
    await writeFile(used, 'precious')
    expect(await codeOf(bench.monitor({ metadata: used }))).toBe('ERA_METADATA_INVALID')
  })

  it('keeps the metadata on an empty partition', async (context) => {
    const bench = await Bench.set(context)
    const metadata = await bench.device('metadata', 8 * 1024 ** 2, context)
    await bench.monitor({ metadata })
    const { first } = await bench.config()
    expect(await runSystemTool('era_dump', [metadata])).toContain(`current_era="${first}"`)
  })

  it('doubts the log if discards were let through', async (context) => {
    const bench = await Bench.set(context)
    await bench.monitor()
    bench.kernel.devices.get('lab')!.discardMax = 4096
    await bench.monitor()
    expect(bench.kernel.devices.get('lab')!.discardMax).toBe(0)
    expect(bench.notes.at(-1)).toContain('let discards through')
  })

  it('refuses a disk of another machine, and a file', async (context) => {
    const bench = await Bench.set(context)
    const other = await bench.device('other', DISK_BYTES, context)
    expect(await codeOf(bench.monitor({ disk: other }))).toBe('DISK_NOT_OWN')
    const state = await StateDirectory.open(bench.stateDir, { create: false, readOnly: false })
    const file = join(bench.stateDir, '..', 'disk')
    await state.saveMachine({ ...state.machine!, disk: file })
    await state.close()
    expect(await codeOf(bench.monitor({ disk: file }))).toBe('DISK_NOT_A_DISK')
  })

  it.each([
    [[], /exactly one of --nbd/],
    [['--nbd', 'unix:/tmp/x', '--era', 'lab'], /exactly one of --nbd/],
    [['--nbd', 'unix:/tmp/x', '--era-metadata', '/dev/sda3'], /goes with --era/],
    [['--era', '../lab'], /letters, digits/],
    [['--era', 'lab', '--read-only'], /go with --nbd/],
  ])('on the command line %j is an error of use', async (args, message) => {
    const directory = await temporaryDirectory()
    const process = new MeshProcess(['monitor', '/dev/null', ...args, '--json', '--state', join(directory, 'state')])
    const outcome = await process.exited
    expect(outcome.code).toBe(2)
    expect(outcome.stderr).toMatch(message)
  })
})
