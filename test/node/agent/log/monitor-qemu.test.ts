import { randomBytes } from 'node:crypto'
import { access, open, readFile, writeFile } from 'node:fs/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { readLogConfig } from '../../../../node/agent/log/log-config.ts'
import { openLog, openTracker } from '../../../../node/agent/log/open-log.ts'
import { openDevice } from '../../../../node/disk/file-device.ts'
import { NbdClient } from '../../../../node/nbd/nbd-client.ts'
import { StateDirectory } from '../../../../node/state/state-directory.ts'
import type { WriteLog } from '../../../../node/writelog/write-log.ts'
import { RangeSet } from '../../../../protocol/ranges.ts'
import { Lab } from '../../../../tools/lab/local-lab.ts'
import { codeOf } from '../../../support/error-code.ts'
import { nbdkit } from '../../../support/nbd-process.ts'
import { startMachine } from '../../../support/virtual-machine.ts'

const MIB = 1024 ** 2
const RELEASE = { release: 1, root: new Uint8Array(32).fill(1) }

/** A machine `m1` of a site, with a disk, whose content is the release. */
async function machine() {
  const lab = await Lab.open()
  onTestFinished(() => lab.close())
  const [disk, image, stateDir] = [lab.path('disk.raw'), lab.path('disk.qcow2'), lab.path('m1')]
  const content = randomBytes(8 * MIB)
  await writeFile(disk, content)
  const state = await StateDirectory.open(stateDir, { create: true })
  await state.saveMachine({
    site: 'lab',
    siteId: '00'.repeat(32),
    id: '00',
    name: 'm1',
    role: 'machine',
    listen: [],
    disk,
  })
  await state.close()
  /** What a restore does with its log. */
  const restore = async <Result>(use: (log: WriteLog) => Promise<Result>): Promise<Result> => {
    await using stack = new AsyncDisposableStack()
    const device = stack.adopt(await openDevice(disk, { writable: true }), (it) => it.close())
    return await use(await openLog(stateDir, device, RELEASE, stack))
  }
  return { lab, disk, image, content, stateDir, restore }
}

async function session(image: string, use: (client: NbdClient) => Promise<void>): Promise<void> {
  const running = await startMachine(image)
  const client = await NbdClient.connect(running.uri('disk'))
  await use(client)
  await client.close()
  await running.end()
}

describe('mesh monitor --qemu', () => {
  it('sets a machine up whose sessions are restored from the log', async () => {
    const { lab, disk, image, content, restore } = await machine()
    const result = await lab.ok('m1', ['monitor', disk, '--qemu', image])
    expect(result).toMatchObject({ state: 'unknown', image, drive: `-drive file=${image},format=qcow2` })
    expect((await readFile(disk)).equals(content)).toBe(true)
    await restore(async (log) => {
      expect((await log.open()).state).toBe('unknown')
      await log.reset(RangeSet.empty)
    })
    expect(await lab.ok('m1', ['monitor', disk, '--qemu', image])).toMatchObject({ state: 'clean' })
    await session(image, (client) => client.write(MIB, Buffer.alloc(10_000, 1)))
    expect(await lab.ok('m1', ['monitor', disk, '--qemu', image])).toMatchObject({ state: 'dirty' })
    await restore(async (log) => {
      expect(await log.open()).toEqual({ state: 'dirty' })
      expect([...(await log.dirty()).runs()]).toEqual([[256, 259]])
      const file = await open(disk, 'r+')
      await file.write(content, MIB, 3 * 4096, MIB)
      await file.sync()
      await file.close()
      await log.clear(await log.dirty())
    })
    await session(image, async (client) => {
      const seen = Buffer.alloc(8 * MIB)
      await client.read(0, seen)
      expect(seen.equals(content)).toBe(true)
    })
    await restore(async (log) => expect(await log.open()).toEqual({ state: 'clean' }))
  })

  it('notices that the disk was written past QEMU', async () => {
    const { lab, disk, image, restore } = await machine()
    await lab.ok('m1', ['monitor', disk, '--qemu', image])
    await restore(async (log) => {
      await log.open()
      await log.reset(RangeSet.empty)
    })
    await restore(async (log) => expect(await log.open()).toEqual({ state: 'clean' }))
    const file = await open(disk, 'r+')
    await file.write(Buffer.alloc(1), 0, 1, 5000)
    await file.close()
    const unknown = { state: 'unknown', reason: 'the disk was written, and qemu has not seen it' }
    await restore(async (log) => expect(await log.open()).toEqual(unknown))
    await restore(async (log) => expect(await log.open()).toEqual(unknown))
  })

  it('refuses to restore under a running machine, and looks at what it writes through its export', async () => {
    const { lab, disk, image, stateDir, restore } = await machine()
    await lab.ok('m1', ['monitor', disk, '--qemu', image])
    const early = await startMachine(image)
    expect(await codeOf(restore((log) => log.open()))).toBe('DISK_IN_USE')
    await early.end()
    await restore(async (log) => {
      await log.open()
      await log.reset(RangeSet.empty)
    })
    const { tracker, period } = await (async () => {
      const config = (await readLogConfig(stateDir))!
      const before = (await openTracker(config, disk))!
      return { tracker: before, period: await before.begin() }
    })()
    const running = await startMachine(image, [period])
    const client = await NbdClient.connect(running.uri('disk'))
    await client.write(0, Buffer.alloc(4096))
    expect(await codeOf(restore((log) => log.open()))).toBe('DISK_IN_USE')
    expect(await codeOf(tracker.changedSince(period))).toBe('DISK_IN_USE')
    const late = await lab.run('m1', ['monitor', disk, '--qemu', image])
    expect(late.result).toMatchObject({ event: 'error', code: 'DISK_IN_USE' })
    await client.close()
    await running.end()
    await lab.ok('m1', ['monitor', disk, '--qemu', image, '--qemu-live', 'nbd+unix:///disk?socket=/none'])
    const again = await startMachine(image, [period])
    const config = { ...(await readLogConfig(stateDir))!, live: again.uri('disk') }
    const live = await openTracker(config, disk, { running: true })
    expect(await live!.changedSince(period)).toEqual({ state: 'known', units: RangeSet.of(0, 1) })
    expect(await codeOf((await openTracker(config, disk))!.changedSince(period))).toBe('DISK_IN_USE')
    await again.end()
  })

  it('keeps the log on another machine, also when another monitor takes over', async () => {
    const { lab, disk, image, restore } = await machine()
    const { uri } = await nbdkit('memory', '64K')
    const first = await lab.run('m1', ['monitor', disk, '--qemu', image, '--log', uri()])
    expect(first.events.find(({ event }) => event === 'note')).toMatchObject({
      text: 'the next restore will read the whole disk: no restore has been made under this log yet',
    })
    await restore(async (log) => {
      await log.open()
      await log.reset(RangeSet.empty)
    })
    await restore(async (log) => expect(await log.open()).toEqual({ state: 'clean' }))
    // What the virtual machine wrote is in QEMU's bitmap only.
    const monitor = await lab.start('m1', ['monitor', disk, '--nbd', `unix:${lab.path('nbd.sock')}`])
    expect(await monitor.event('monitoring')).toMatchObject({ state: 'unknown' })
    expect((await monitor.stop()).code).toBe(0)
    await expect(access(image)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it.each<[string, string[], string]>([
    ['no monitor', [], 'USAGE'],
    ['two monitors', ['--qemu', 'x.qcow2', '--nbd', 'unix:/x'], 'USAGE'],
    ['an export without a machine', ['--nbd', 'unix:/x', '--qemu-live', 'nbd://x'], 'USAGE'],
    ['options of another monitor', ['--qemu', 'x.qcow2', '--force'], 'USAGE'],
    ['something else at the address', ['--qemu', 'x.qcow2', '--qemu-live', 'http://x'], 'NBD_ADDRESS_INVALID'],
    ['a log with TLS', ['--qemu', 'x.qcow2', '--log', 'nbds://x'], 'NBD_ADDRESS_INVALID'],
  ])('refuses %s', async (_, args, code) => {
    const { lab, disk } = await machine()
    expect((await lab.run('m1', ['monitor', disk, ...args])).result).toMatchObject({ event: 'error', code })
  })

  it('refuses another disk, and a file that is something else', async () => {
    const { lab, disk, image, content } = await machine()
    await writeFile(lab.path('other.raw'), content)
    const other = await lab.run('m1', ['monitor', lab.path('other.raw'), '--qemu', image])
    expect(other.result).toMatchObject({ code: 'DISK_NOT_OWN' })
    const wrong = await lab.run('m1', ['monitor', disk, '--qemu', lab.path('other.raw')])
    expect(wrong.result).toMatchObject({ code: 'QEMU_FAILED' })
    expect((await readFile(lab.path('other.raw'))).equals(content)).toBe(true)
  })
})
