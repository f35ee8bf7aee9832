import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, type TestContext } from 'vitest'
import { BareDisk } from '../../../../node/agent/boot/bare-disk.ts'
import { provision } from '../../../../node/agent/boot/provision.ts'
import type { AgentEvent } from '../../../../node/agent/machine/events.ts'
import { contentOf } from '../../../../node/disk/blank-disk.ts'
import { openDevice } from '../../../../node/disk/file-device.ts'
import type { MachineConfig } from '../../../../node/state/machine-config.ts'
import { digestFromHex } from '../../../../protocol/digest.ts'
import { Lab } from '../../../../tools/lab/local-lab.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { runTool } from '../../../../tools/lab/run-tool.ts'
import { attachLoop, orSkip } from '../../../support/real-devices.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const MIB = 1024 ** 2

describe('a bare machine', () => {
  let lab: Lab
  let siteId: string

  beforeAll(async () => {
    lab = await Lab.open()
    await writeFile(lab.path('model.img'), new Random(7).bytes(2 * MIB))
    await lab.serve('master', ['seed', lab.path('model.img'), '--image', 'root'])
    await writeFile(lab.path('win.img'), new Random(8).bytes(MIB))
    await lab.ok('master', ['seed', lab.path('win.img'), '--image', 'school/win'])
    siteId = String((await lab.ok('master', ['machines'])).siteId)
  }, 60_000)
  afterAll(() => lab.close())

  async function bare(context: TestContext, mib: number) {
    for (const tool of ['mke2fs', 'mkfs.vfat', 'debugfs']) await orSkip(context, 'which', [tool])
    const here = await temporaryDirectory()
    await writeFile(join(here, 'disk.img'), '')
    await truncate(join(here, 'disk.img'), mib * MIB)
    const path = await attachLoop(join(here, 'disk.img'), context)
    const waits = Promise.withResolvers<string>()
    const stop = new AbortController()
    onTestFinished(() => stop.abort())
    const run = (): ReturnType<typeof provision> =>
      provision({
        stateDir: join(here, 'state'),
        siteId: digestFromHex(siteId)!,
        master: [lab.address('master')!],
        disk: new BareDisk({ path, size: mib * MIB, sectorBytes: 512, model: '' }),
        mdns: false,
        signal: stop.signal,
        report: (event: AgentEvent) => event.type === 'waiting' && event.why === '' && waits.resolve(event.code),
        loader: { code: Buffer.alloc(0), core: Buffer.alloc(0) },
        laying: async () => undefined,
      })
    const holds = async (): Promise<string | undefined> => {
      const device = await openDevice(path, { writable: false })
      return contentOf(device).finally(() => device.close())
    }
    return { path, run, holds, waits: waits.promise }
  }

  const setLayout = async (more = ''): Promise<void> => {
    const partition = '[[partition]]\nimage = "root"\ntype = "root"\nsize = "2M"\ngrow = true\n'
    await writeFile(lab.path('layout.toml'), `esp = "128M"\nstate = "32M"\n${partition}${more}`)
    await lab.ok('master', ['layout', 'set', lab.path('layout.toml')])
  }

  it('is not let in, and nothing is written, as long as the site has no layout, or one that is too large', async (context) => {
    const { run, holds, waits } = await bare(context, 160)
    const without = run()
    await lab.ok('master', ['approve', '--code', await waits])
    await expect(without).rejects.toMatchObject({ code: 'LAYOUT_MISSING' })
    await setLayout()
    await expect(run()).rejects.toMatchObject({ code: 'DISK_TOO_SMALL' })
    expect(await holds()).toBeUndefined()
    expect(((await lab.ok('master', ['peers'])).peers as unknown[]).length).toBe(0)
  })

  it('waits for somebody, then is laid out with its key and what it has become', async (context) => {
    await setLayout()
    const { path, run, holds, waits } = await bare(context, 200)
    const provisioned = run()
    const code = await waits
    expect(await holds()).toBeUndefined()
    const { machines } = (await lab.ok('master', ['machines'])) as unknown as {
      machines: { code: string; name: string }[]
    }
    const { name } = machines.find((one) => one.code === code)!
    expect(name).toMatch(/^pc-[0-9a-f]{12}$|^[a-z0-9]/)
    await lab.ok('master', ['approve', '--code', code, '--as', 'pc1', '--group', 'room-1'])
    expect(await provisioned).toMatchObject({ event: 'enrolled', name: 'pc1', group: 'room-1', image: 'root' })
    expect(await holds()).toContain('GPT with 4 partitions: vfat, ext4')
    const place = ['--offset', String(129 * MIB), '--sizelimit', String(32 * MIB)]
    const state = (await runTool('losetup', ['--find', '--show', '--read-only', ...place, path])).trim()
    onTestFinished(async () => void (await runTool('losetup', ['--detach', state])))
    const machine = JSON.parse(await runTool('debugfs', ['-R', 'cat /machine.json', state])) as Record<string, unknown>
    expect(machine).toMatchObject({
      name: 'pc1',
      role: 'machine',
      image: 'root',
      disk: `${path}p3`,
      siteId,
      diskIdentity: { kind: 'partition', size: 38 * MIB, facts: { partitionNumber: '3' } },
    })
    expect(await runTool('debugfs', ['-R', 'stat /identity.pem', state])).toContain('Mode:  0600')
    expect(await runTool('debugfs', ['-R', 'ls /trust', state])).toContain('CURRENT')
  })

  it('of several images has a state for each, and is one machine of the site', async (context) => {
    await setLayout(
      '[[partition]]\nlabel = "home"\ntype = "home"\nsize = "1M"\n[[partition]]\nimage = "school/win"\nsystem = true\ntype = "windows"\nsize = "1M"\n',
    )
    const { path, run, waits } = await bare(context, 200)
    const provisioned = run()
    await lab.ok('master', ['approve', '--code', await waits, '--as', 'pc2'])
    await provisioned
    const { partitions } = JSON.parse(await runTool('sfdisk', ['--json', path])).partitiontable as {
      partitions: { uuid: string; name: string }[]
    }
    expect(partitions.map(({ name }) => name)).toEqual([
      'lab-esp',
      'lab-state',
      'root',
      'home',
      'school/win',
      'lab-bios',
    ])
    const place = ['--offset', String(129 * MIB), '--sizelimit', String(32 * MIB)]
    const state = (await runTool('losetup', ['--find', '--show', '--read-only', ...place, path])).trim()
    onTestFinished(async () => void (await runTool('losetup', ['--detach', state])))
    const config = async (folder: string): Promise<MachineConfig> =>
      JSON.parse(await runTool('debugfs', ['-R', `cat ${folder}/machine.json`, state])) as MachineConfig
    const { id } = await config('')
    const uuid = partitions[4]!.uuid.toLowerCase()
    expect(await config('/partitions/5')).toMatchObject({
      ...{ id, name: 'pc2', image: 'school/win', disk: `${path}p5`, partOf: '../..', system: true },
      diskIdentity: { kind: 'partition', size: MIB, facts: { partitionNumber: '5', partition: uuid } },
    })
    expect(await runTool('debugfs', ['-R', 'ls /partitions', state])).not.toMatch(/\b[34]\b +\(/)
  })

  it('whose disk holds something is laid out only if the approval says that it may be wiped', async (context) => {
    await setLayout()
    const { path, run, holds, waits } = await bare(context, 200)
    await runTool('mke2fs', ['-q', '-F', '-t', 'ext4', path])
    const running = run()
    const code = await waits
    const refused = await lab.run('master', ['approve', '--code', code])
    expect(refused.result?.code, refused.stderr).toBe('DISK_FOREIGN')
    expect(await holds()).toBe('ext4')
    await lab.ok('master', ['approve', '--code', code, '--wipe'])
    expect(await running).toMatchObject({ mayWipe: true })
    expect(await holds()).toContain('GPT with 4 partitions')
  })
})
