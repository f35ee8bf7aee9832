import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runBootTool } from '../../../../node/agent/boot/boot-tool.ts'
import { currentSlot, parseBootMenu, slotEntries } from '../../../../node/agent/boot/firmware.ts'
import { keepAgent, partitionBeside } from '../../../../node/agent/boot/keep-agent.ts'
import { Machine } from '../../../../node/agent/machine/machine.ts'
import { fetchImage } from '../../../../node/agent/restore/fetch-image.ts'
import { Lab } from '../../../../tools/lab/local-lab.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const MIB = 1024 ** 2

describe('the agent on a machine’s own disk', () => {
  let lab: Lab
  let common: { stateDir: string; listen: string[]; mdns: boolean; signal: AbortSignal; report: () => void }
  const agent = new Random(8).bytes(MIB + 512)

  beforeAll(async () => {
    lab = await Lab.open()
    await writeFile(lab.path('model.img'), new Random(7).bytes(2 * MIB))
    await writeFile(lab.path('agent.efi'), agent)
    await lab.serve('master', ['seed', lab.path('model.img'), '--image', 'root'])
    await lab.ok('master', ['seed', lab.path('agent.efi'), '--image', 'agent'])
    await copyFile(lab.path('model.img'), lab.path('pc.img'))
    await lab.ok('pc', [
      'join',
      await lab.invite('master'),
      '--disk',
      lab.path('pc.img'),
      '--image',
      'root',
      '--name',
      'pc',
    ])
    const { signal } = new AbortController()
    common = {
      stateDir: lab.path('pc'),
      listen: ['/ip4/127.0.0.1/tcp/0'],
      mdns: false,
      signal,
      report: () => undefined,
    }
  }, 60_000)
  afterAll(() => lab.close())

  it('is fetched from others, verified, and what is right of it already is left', async () => {
    const target = join(await temporaryDirectory(), 'agent.efi.new')
    await writeFile(target, agent.subarray(0, MIB))
    expect(await fetchImage({ ...common, image: 'agent', target })).toMatchObject({ image: 'agent', release: 1 })
    expect((await readFile(target)).equals(agent)).toBe(true)
    const other = { ...common, image: 'none', target: `${target}2` }
    await expect(fetchImage(other)).rejects.toMatchObject({ code: 'IMAGE_UNKNOWN' })
  })

  it('is not looked for where the layout of the site names none, and needs a partition of its own', async () => {
    let fetching = 0
    const options = {
      ...common,
      place: join(await temporaryDirectory(), 'esp'),
      bringUp: async () => undefined,
      waitMs: 10_000,
      fetching: () => fetching++,
    }
    expect(await keepAgent(options)).toBeUndefined()
    // Of a restore that has just proven it, and then nothing is read: there is no such directory.
    const { trust } = await Machine.look(lab.path('pc'))
    expect(await keepAgent({ ...options, view: trust.view(), stateDir: lab.path('none') })).toBeUndefined()
    const layout = (more: string) =>
      `esp = "128M"\nstate = "32M"\n${more}[[partition]]\nimage = "root"\ntype = "root"\nsize = "2M"\n`
    await writeFile(lab.path('layout.toml'), layout('agent = "agent"\n'))
    await lab.ok('master', ['layout', 'set', lab.path('layout.toml')])
    // The machine hears of it.
    await fetchImage({ ...common, image: 'agent', target: join(await temporaryDirectory(), 'agent.efi') })
    expect(fetching).toBe(0)
    await expect(keepAgent(options)).rejects.toMatchObject({ code: 'BOOT_ESP_MISSING', exitCode: 3 })
    expect(fetching).toBe(1)
  })

  it('has its partition on the disk of the system', async () => {
    const sys = await temporaryDirectory()
    await mkdir(join(sys, 'class/block'), { recursive: true })
    for (const [disk, part, name] of [
      ['vda', 'vda1', 'lab-esp'],
      ['vda', 'vda3', 'root'],
      ['vdb', 'vdb1', 'lab-esp-2'],
      ['vdb', 'vdb3', 'root'],
    ] as const) {
      const folder = join(sys, 'devices', disk, part)
      await mkdir(folder, { recursive: true })
      await writeFile(join(folder, 'uevent'), `DEVNAME=${part}\nPARTN=${part.at(-1)}\nPARTNAME=${name}\n`)
      await symlink(folder, join(sys, 'class/block', part))
    }
    expect(await partitionBeside('/dev/vda3', 'lab-esp', sys)).toEqual({
      node: '/dev/vda1',
      disk: '/dev/vda',
      number: 1,
    })
    expect(await partitionBeside('/dev/vdb3', 'lab-esp', sys)).toBeUndefined()
  })

  it('takes the place of entries of the firmware that have its name', async () => {
    const listed = [
      'BootCurrent: 0003',
      'BootOrder: 0003,0000,001A',
      'Boot0000* UiApp\tFvVol(7cb8bdc9)',
      'Boot0003* lab-mesh agent A\tHD(1,GPT,1b0f3f6c)/File(\\EFI\\mesh\\agent-a.efi)',
      'Boot001A  lab-mesh agent A',
      'Boot001B* lab-mesh agent AB',
    ].join('\n')
    const menu = parseBootMenu(listed)
    expect([slotEntries(menu, 'a'), slotEntries(menu, 'b'), currentSlot(menu)]).toEqual([['0003', '001A'], [], 'a'])
    expect(currentSlot(parseBootMenu(listed.replace('BootCurrent: 0003', 'BootCurrent: 0000')))).toBeUndefined()
    const failed = runBootTool('sh', ['-c', 'echo no room left >&2; exit 5'], 'BOOT_ENTRY_FAILED')
    await expect(failed).rejects.toMatchObject({ code: 'BOOT_ENTRY_FAILED' })
    await expect(failed).rejects.toThrow('no room left')
  })
})
