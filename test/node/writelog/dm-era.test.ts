import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, type TestContext } from 'vitest'
import { DmEra, type EraOrigin } from '../../../node/writelog/dm-era.ts'
import { DurableBitmap, logFileSize } from '../../../node/writelog/durable-bitmap.ts'
import { EraDevice } from '../../../node/writelog/era-device.ts'
import { MAX_PERIOD_BYTES } from '../../../node/writelog/log-layout.ts'
import { openLogStorage } from '../../../node/writelog/log-storage.ts'
import { TrackedLog } from '../../../node/writelog/tracked-log.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { runTool } from '../../../tools/lab/run-tool.ts'
import { writeLogCompliance } from '../../compliance/write-log.ts'
import { ScriptedEra } from '../../fakes/scripted-era.ts'
import { imaginedDisk } from '../../support/log-disk.ts'
import { attachLoop } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const FIRST = 70_000
const SECTORS = (4 * 1024 ** 2) / 512

interface Setup {
  readonly directory: string
  readonly kernel: ScriptedEra
  readonly place: { name: string; metadata: string; disk: string }
  readonly device: EraDevice
  readonly tracker: (origin?: Partial<EraOrigin>, release?: string) => DmEra
}

async function setUp(attach: (file: string) => Promise<string>): Promise<Setup> {
  const directory = await temporaryDirectory()
  const [diskFile, metadata] = [join(directory, 'disk'), join(directory, 'metadata')]
  for (const path of [diskFile, metadata]) {
    const file = await open(path, 'w')
    await file.truncate(SECTORS * 512)
    if (path === metadata) await file.write('metadata')
    await file.close()
  }
  const disk = await attach(diskFile)
  const kernel = new ScriptedEra()
  kernel.era = FIRST
  const place = { name: 'lab', metadata: await attach(metadata), disk }
  const device = new EraDevice(place, kernel.system(directory))
  const tracker = (origin: Partial<EraOrigin> = {}, release?: string): DmEra =>
    new DmEra({ ...place, first: FIRST, last: FIRST, ...origin }, kernel.system(directory, release))
  return { directory, kernel, place, device, tracker }
}

/** Over loop devices, where there are any. */
const loops =
  (context: TestContext) =>
  (file: string): Promise<string> =>
    attachLoop(file, context)

/** A log that has begun with nothing dirty. */
writeLogCompliance('TrackedLog over dm-era', async () => {
  const { tracker, directory } = await setUp(async (file) => {
    const device = (await runTool('losetup', ['--find', '--show', file])).trim()
    onTestFinished(async () => void (await runTool('losetup', ['--detach', device])))
    return device
  })
  const size = SECTORS * 512
  const disk = imaginedDisk(size)
  const release = { release: 1, root: new Uint8Array(32).fill(1) }
  const start = async (): Promise<TrackedLog> => {
    const { unitSize } = tracker()
    const { storage, made } = await openLogStorage(join(directory, 'log'), logFileSize(size, unitSize))
    onTestFinished(() => storage.close())
    const bitmap = new DurableBitmap({ storage, disk, source: 'dm-era', unitSize, release })
    if (made !== undefined) await bitmap.format(made)
    return new TrackedLog(bitmap, tracker())
  }
  const first = await start()
  await first.open()
  await first.reset(RangeSet.empty)
  await first.close()
  return { log: await start(), units: size / first.unitSize, again: start }
})

/** What changed, as blocks, or why that is not known. */
async function changes(tracker: DmEra, period: string): Promise<number[] | string> {
  const changed = await tracker.changedSince(period)
  return changed.state === 'unknown' ? changed.reason : [...changed.units.values()]
}

/** Changes what the kernel, or a program (with what it says), does from now on. */
function having(kernel: ScriptedEra, facts: Partial<ScriptedEra>, broken?: [string, string]): Record<string, never> {
  Object.assign(kernel, facts)
  if (broken !== undefined) kernel.broken.set(...broken)
  return {}
}

describe('DmEra', () => {
  it('knows what was written since a period began, active or not, over crashes', async (context) => {
    const { kernel, device, tracker } = await setUp(loops(context))
    const period = await tracker().begin()
    expect(period).toMatch(new RegExp(`^${FIRST}\\.\\d+\\.${SECTORS}$`))
    await device.activate()
    kernel.write(3, 4)
    expect(await changes(tracker(), period)).toEqual([3, 4])
    kernel.write(9)
    kernel.crash()
    expect(await changes(tracker(), period)).toEqual([3, 4, 9])
    const next = await tracker().begin()
    expect(await changes(tracker(), next)).toEqual([])
    expect(await changes(tracker(), period)).toEqual([3, 4, 9])
    await device.activate()
    kernel.write(4)
    expect(await changes(tracker(), next)).toEqual([4])
    expect(kernel.snapshot).toBe(false)
    expect([...kernel.devices.keys()]).toEqual(['lab'])
  })

  it('reads the metadata over a device that takes no writes, not over the disk, and removes both', async (context) => {
    const { kernel, place, tracker } = await setUp(loops(context))
    await tracker().begin()
    const tables = kernel.ran.filter((line) => line.startsWith('dmsetup create'))
    expect(tables[0]).toContain(`0 ${SECTORS} error`)
    expect(tables[1]).toMatch(new RegExp(`0 ${SECTORS} era 7:\\d+ 253:0 128`))
    expect(tables.join()).not.toContain(place.disk)
    expect(kernel.devices.size).toBe(0)
  })

  it('removes what a killed look left behind, a snapshot too', async (context) => {
    const { kernel, tracker } = await setUp(loops(context))
    const period = await tracker().begin()
    kernel.devices.set('lab-log', { number: '253:8', table: '', suspended: false, discardMax: 0 })
    kernel.devices.set('lab-nothing', { number: '253:9', table: '', suspended: false, discardMax: 0 })
    kernel.snapshot = true
    kernel.write(5)
    expect(await changes(tracker(), period)).toEqual([5])
    expect(kernel.devices.size).toBe(0)
    expect(kernel.snapshot).toBe(false)
  })

  it('drops the snapshot although it could not be read', async (context) => {
    const { kernel, tracker } = await setUp(loops(context))
    const period = await tracker().begin()
    kernel.broken.set('era_invalidate', 'metadata contains errors')
    expect(await changes(tracker(), period)).toMatch(/metadata contains errors/)
    expect(kernel.snapshot).toBe(false)
    expect(kernel.devices.size).toBe(0)
  })

  it('lets the kernel make no metadata of its own', async (context) => {
    const { kernel, place, tracker } = await setUp(loops(context))
    const period = await tracker().begin()
    await writeFile(place.metadata, Buffer.alloc(8192))
    kernel.ran.length = 0
    expect(await changes(tracker(), period)).toMatch(/holds no metadata/)
    expect(kernel.ran).toEqual([])
  })

  it('lets looks at a time wait for each other', async (context) => {
    const { kernel, tracker } = await setUp(loops(context))
    const period = await tracker().begin()
    kernel.write(1)
    const all = await Promise.all([1, 2, 3].map(() => changes(tracker(), period)))
    expect(all).toEqual([[1], [1], [1]])
  })

  it.for<[string, RegExp, (setup: Setup) => { origin?: Partial<EraOrigin>; release?: string; period?: string }]>([
    ['no period', /names no era/, () => ({ period: '' })],
    ['a period that is none', /names no era/, () => ({ period: '1.2' })],
    ['other metadata', /other metadata/, () => ({ origin: { first: FIRST + 1 } })],
    ['a disk of another size', /sectors, and had 9 /, () => ({ period: `${FIRST}.${FIRST + 2}.9` })],
    ['an era counter that went back', /counts \d+ eras/, ({ kernel }) => ({ origin: { last: kernel.era + 9 } })],
    ['metadata made anew by the kernel', /counts \d+ eras/, ({ kernel }) => having(kernel, { era: 1 })],
    ['metadata far ahead', /is not of these metadata/, ({ kernel }) => having(kernel, { era: kernel.era + 2 ** 20 })],
    ['an era still to come', /is not of these/, () => ({ period: `${FIRST}.${FIRST + 500}.${SECTORS}` })],
    ['an era before the first', /is not of these/, () => ({ period: `${FIRST}.${FIRST - 1}.${SECTORS}` })],
    ['an old kernel', /Linux 5.10.0-8 loses writes/, () => ({ release: '5.10.0-8' })],
    ['metadata that failed', /have failed: Error/, ({ kernel }) => having(kernel, { status: 'Error' })],
    ['a missing program', /is missing/, ({ kernel }) => having(kernel, {}, ['era_invalidate', ''])],
    ['a snapshot refused', /no space/, ({ kernel }) => having(kernel, {}, ['take_metadata_snap', 'no space'])],
    ['metadata in use', /in use by dm-7/, ({ kernel }) => having(kernel, { holders: ['dm-7'] })],
  ])('does not know after %s', async ([, reason, change], context) => {
    const setup = await setUp(loops(context))
    const period = await setup.tracker().begin()
    const { origin, release, period: other = period } = change(setup)
    expect(await changes(setup.tracker(origin, release), other)).toMatch(reason)
  })

  it.for<[string, RegExp, (device: { table: string; suspended: boolean; discardMax: number }) => object]>([
    ['is suspended', /is suspended/, () => ({ suspended: true })],
    ['lets discards through', /lets discards through/, () => ({ discardMax: 4096 })],
    ['is no era device', /no era device/, ({ table }) => ({ table: table.replace(/era.*/, 'linear 7:0 0') })],
    ['is over another disk', /is not over/, ({ table }) => ({ table: table.replace(/7:\d+ 128/, '8:0 128') })],
    ['has another size', /has 77/, ({ table }) => ({ table: table.replace(/^0 \d+/, '0 77') })],
    ['has other blocks', /blocks of 8 sectors/, ({ table }) => ({ table: table.replace(/128$/, '8') })],
    ['keeps its metadata elsewhere', /elsewhere/, ({ table }) => ({ table: table.replace(/era \S+/, 'era 8:1') })],
  ])('does not know while the device %s', async ([, reason, change], context) => {
    const { kernel, device, tracker } = await setUp(loops(context))
    const period = await tracker().begin()
    await device.activate()
    expect(await changes(tracker(), period)).toEqual([])
    Object.assign(kernel.devices.get('lab')!, change(kernel.devices.get('lab')!))
    expect(await changes(tracker(), period)).toMatch(reason)
    expect(await tracker().begin()).toMatch(/^!/)
  })

  it('begins no period where it cannot, which the next look is told', async (context) => {
    const { kernel, tracker } = await setUp(loops(context))
    kernel.broken.set('dmsetup', `${'long '.repeat(40)}reason`)
    const period = await tracker().begin()
    expect(Buffer.byteLength(period)).toBeLessThanOrEqual(MAX_PERIOD_BYTES)
    kernel.broken.clear()
    expect(await changes(tracker(), period)).toMatch(/^dmsetup: long/)
  })

  it('lets the disk refuse discards while the device is made, and no longer', async (context) => {
    const { kernel, device } = await setUp(loops(context))
    const before = kernel.diskDiscardMax
    expect(before).toBeGreaterThan(0)
    await device.activate()
    // A device has from its disk, at the moment it is made, what it lets through.
    expect(await device.refusesDiscards()).toBe(true)
    expect(kernel.diskDiscardMax).toBe(before)
    kernel.broken.set('dmsetup', 'Device or resource busy')
    await expect(device.activate()).rejects.toMatchObject({ code: 'ERA_FAILED' })
    expect(kernel.diskDiscardMax).toBe(before)
  })
})
