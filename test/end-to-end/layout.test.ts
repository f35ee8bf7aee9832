import { truncate, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { readLayoutFile } from '../../tools/cli/layout-file.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, startMaster } from '../support/fixtures.ts'
import { orSkip } from '../support/real-devices.ts'
import { testSeed } from '../support/seed.ts'

const MIB = 1024 ** 2

/** A disk as Windows makes it, beside a Linux: ESP, reserved, Windows, recovery, root. */
async function modelDisk(path: string): Promise<void> {
  await writeFile(path, '')
  await truncate(path, 64 * MIB)
  const parts = ['1:2048:+4M', '2:0:+1M', '3:0:+16M', '4:0:+3000K', '5:0:0']
  const types = ['ef00', '0c01', '0700', '2700', '8304']
  const names = ['EFI system partition', '', 'Windows – C', 'WinRE', 'Debian']
  for (const [at, part] of parts.entries())
    await runTool('sgdisk', ['-n', part, '-t', `${at + 1}:${types[at]}`, '-c', `${at + 1}:${names[at]}`, path])
}

describe('the layout of a site’s disks', () => {
  const random = new Random(testSeed('layout'))
  let lab: Lab

  beforeAll(async () => {
    lab = await Lab.open()
    await startMaster(lab, (2 * MIB) / BLOCK, random)
  })
  afterAll(() => lab.close())

  const set = async (image: string, size: string) => {
    const partition = `[[partition]]\nimage = "${image}"\ntype = "root"\nsize = "${size}"\ngrow = true\n`
    await writeFile(lab.path('layout.toml'), `esp = "256M"\nstate = "64M"\n${partition}`)
    return lab.run('master', ['layout', 'set', lab.path('layout.toml')])
  }

  it('is proposed from the disk of the model, and gives other disks its GUIDs', async (context) => {
    await orSkip(context, 'which', ['sgdisk'])
    const disk = lab.path('model-disk.img')
    await modelDisk(disk)
    const { text, images } = await lab.ok('master', ['layout', 'propose', disk])
    await writeFile(lab.path('proposed.toml'), String(text))
    const layout = await readLayoutFile(lab.path('proposed.toml'))
    const { partitiontable: table } = JSON.parse(await runTool('sfdisk', ['--json', disk])) as {
      partitiontable: { id: string; partitions: { uuid: string; type: string; size: number }[] }
    }
    expect(layout.uuid).toBe(table.id.toLowerCase())
    const of = (number: number) => table.partitions[number - 1]!
    expect(
      layout.partitions.map(({ label, image, system, size }) => ({ label, image, system, mib: size / MIB })),
    ).toEqual([
      { label: 'Debian', image: 'debian', system: undefined, mib: 39 },
      { label: 'EFI system partition', image: 'efi-system-partition', system: undefined, mib: 4 },
      { label: 'partition-2', image: undefined, system: undefined, mib: 1 },
      { label: 'Windows – C', image: 'windows-c', system: true, mib: 16 },
      { label: 'WinRE', image: 'winre', system: undefined, mib: 3 },
    ])
    for (const [at, number] of [5, 1, 2, 3, 4].entries()) {
      const { uuid, type } = layout.partitions[at]!
      expect([uuid, type]).toEqual([of(number).uuid.toLowerCase(), of(number).type.toLowerCase()])
    }
    expect(images).toContainEqual({ number: 3, image: 'windows-c' })
    const none = await lab.run('master', ['layout', 'propose', lab.path('model.img')])
    expect([none.code, none.result?.code]).toEqual([EXIT.usage, 'LAYOUT_INVALID'])
  })

  it('is signed by the running master, if its images are there and fit, and shown', async () => {
    const none = await lab.run('master', ['layout', 'show'])
    expect([none.result?.code, none.code]).toEqual(['LAYOUT_MISSING', EXIT.trust])
    const image = String((await lab.ok('master', ['status'])).image)
    const small = await set(image, '1M')
    expect([small.result?.code, small.code]).toEqual(['LAYOUT_INVALID', EXIT.usage])
    expect(small.stderr).toContain(`image ${image} release 1 needs ${2 * MIB}`)
    const other = await set('other', '2M')
    expect([other.result?.code, other.code]).toEqual(['IMAGE_UNKNOWN', EXIT.trust])
    expect(await set(image, '2M')).toMatchObject({ code: 0, result: { event: 'layout-set' } })
    expect(await lab.ok('master', ['layout', 'show'])).toMatchObject({
      event: 'layout',
      esp: 256 * MIB,
      partitions: [{ image, label: image, size: 2 * MIB, grow: true }],
    })
  })
})
