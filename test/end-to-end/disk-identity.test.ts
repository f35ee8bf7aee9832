import { execFile } from 'node:child_process'
import { copyFile, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { Lab, type Outcome } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { BLOCK, startMaster } from '../support/fixtures.ts'
import { gptBytes } from '../support/gpt.ts'
import { appears, attachLoop, orSkip, tellUdev } from '../support/real-devices.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 32
const UUID = '0fc63daf-8483-4772-8e79-3d69d8477de4'
const OTHER_UUID = 'fedcba98-7654-4321-8fed-cba987654321'
const run = promisify(execFile)

describe('the disk of a machine', () => {
  const random = new Random(testSeed('disk identity'))
  let lab: Lab
  let image: Buffer
  let machines = 0

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
  })
  afterAll(() => lab.close())

  /** A loop device over a file of random bytes, as large as the image; what udev says of it. */
  async function device(context: TestContext, name: string, udev: readonly string[] = []): Promise<Device> {
    const file = lab.path(`${name}.img`)
    await writeFile(file, random.bytes(image.byteLength))
    const path = await attachLoop(file, context)
    if (udev.length > 0) await tellUdev(path, udev)
    return { path, file, before: await readFile(file) }
  }

  /** A machine that has joined, and restored its disk once. */
  async function machineWith(disk: string): Promise<string> {
    const name = `pc${++machines}`
    await lab.ok(name, ['join', await lab.invite('master', 1), '--disk', disk, '--name', name])
    await lab.ok(name, ['restore'])
    return name
  }

  async function isImage({ path, file }: Device): Promise<boolean> {
    await run('blockdev', ['--flushbufs', path])
    return (await readFile(file)).equals(image)
  }

  async function isUntouched({ path, file, before }: Device): Promise<boolean> {
    await run('blockdev', ['--flushbufs', path])
    return (await readFile(file)).equals(before)
  }

  /** The path stands for another disk from now on. */
  async function lead(link: string, to: string): Promise<void> {
    await rm(link, { force: true })
    await symlink(to, link)
  }

  const notes = (outcome: Outcome): string =>
    outcome.events
      .flatMap(({ event, text }) => (event === 'note' || event === 'warning' ? [String(text)] : []))
      .join('\n')

  it('is found under its new name, and the other one is left alone', async (context) => {
    const own = await device(context, 'own', ['ID_SERIAL=OWN', `ID_PART_ENTRY_UUID=${UUID}`])
    const other = await device(context, 'other', ['ID_SERIAL=OTHER', `ID_PART_ENTRY_UUID=${OTHER_UUID}`])
    const link = lab.path('sda3')
    await lead(link, own.path)
    const name = await machineWith(link)
    await lead(link, other.path)
    await writeFile(own.file, random.bytes(BLOCK), { flag: 'r+' })
    for (const command of ['restore', 'verify']) {
      const outcome = await lab.run(name, [command])
      expect(outcome.code, outcome.stderr).toBe(0)
      expect(notes(outcome)).toContain('OTHER')
      expect(notes(outcome)).toContain(`disk is now ${own.path}`)
    }
    expect(await isUntouched(other)).toBe(true)
    expect(await isImage(own)).toBe(true)
    const up = await lab.serve(name, ['up'])
    expect(await up.event('serving')).toMatchObject({ blocks: BLOCKS })
    await up.stop()
  })

  it('is not replaced by another one without being told so', async (context) => {
    const own = await device(context, 'first', ['ID_SERIAL=FIRST'])
    const link = lab.path('sdb')
    await lead(link, own.path)
    const name = await machineWith(link)
    // Gone: nothing of this computer has that serial number any more.
    await tellUdev(own.path, ['ID_SERIAL=ELSEWHERE'])
    const other = await device(context, 'second', ['ID_SERIAL=SECOND'])
    await lead(link, other.path)
    const socket = `unix:${lab.path('refused.sock')}`
    for (const args of [
      ['restore'],
      ['verify'],
      ['up'],
      ['monitor', link, '--nbd', socket],
      ['monitor', '--nbd', socket],
    ]) {
      const outcome = await lab.run(name, args)
      expect(outcome, args.join(' ')).toMatchObject({ code: 3, result: { code: 'DISK_OTHER' } })
      expect(String(outcome.result?.message)).toMatch(/SECOND.*FIRST/)
    }
    expect(await isUntouched(other)).toBe(true)
    expect(await lab.run(name, ['restore', '--accept-new-disk'])).toMatchObject({ code: 0 })
    expect(await isImage(other)).toBe(true)
    // From now on it is known by what the new one is.
    expect(await lab.run(name, ['restore'])).toMatchObject({ code: 0 })
    await lead(link, own.path)
    expect(notes(await lab.run(name, ['restore']))).toContain(`disk is now ${other.path}`)
  })

  it('may be given a new path, if it is that disk', async (context) => {
    const own = await device(context, 'moved', ['ID_SERIAL=MOVED'])
    const other = await device(context, 'stranger', ['ID_SERIAL=STRANGER'])
    const name = await machineWith(own.path)
    const refused = await lab.run(name, ['restore', '--disk', other.path])
    expect(refused).toMatchObject({ code: 3, result: { code: 'DISK_OTHER' } })
    expect(await isUntouched(other)).toBe(true)
    const link = lab.path('moved')
    await lead(link, own.path)
    await lab.ok(name, ['restore', '--disk', link])
    expect(JSON.parse(await readFile(lab.path(name, 'machine.json'), 'utf8'))).toMatchObject({
      disk: link,
      diskIdentity: { kind: 'loop', facts: { udevName: `MOVED-${process.pid}` } },
    })
  })

  it('is refused where nothing tells it from its copy', async (context) => {
    const own = await device(context, 'original', [`ID_PART_ENTRY_UUID=${UUID}`])
    const copy = await device(context, 'copy', [`ID_PART_ENTRY_UUID=${UUID}`])
    const link = lab.path('vda1')
    await lead(link, own.path)
    const name = await machineWith(link)
    // As the kernel shows a disk without a serial number: nothing but the partition is known.
    const file = lab.path(name, 'machine.json')
    const machine = JSON.parse(await readFile(file, 'utf8'))
    delete machine.diskIdentity.facts.file
    await writeFile(file, JSON.stringify(machine))
    const outcome = await lab.run(name, ['restore'])
    expect(outcome).toMatchObject({ code: 3, result: { code: 'DISK_AMBIGUOUS' } })
    for (const path of [own.path, copy.path]) expect(String(outcome.result?.message)).toContain(path)
    expect(await isUntouched(copy)).toBe(true)
  })

  it('is a partition by its UUID, which is read without udev', async (context) => {
    const sectors = 2048 + image.byteLength / 512
    const disks = await Promise.all(
      [UUID, OTHER_UUID].map(async (uuid, i) => {
        const file = lab.path(`gpt${i}.img`)
        await writeFile(file, gptBytes([{ uuid, first: 2048, last: sectors - 1 }], { sectors: sectors + 64 }))
        await truncate(file, (sectors + 64) * 512)
        const path = await attachLoop(file, context, { partitions: true })
        // A kernel that does not read this kind of table is told what stands in it.
        if (!(await appears(`${path}p1`, 5))) await orSkip(context, 'partx', ['--add', path])
        return { path: `${path}p1`, file, before: await readFile(file) }
      }),
    )
    const [own, other] = disks as [Device, Device]
    const link = lab.path('sda1')
    await lead(link, own.path)
    const name = await machineWith(link)
    expect(JSON.parse(await readFile(lab.path(name, 'machine.json'), 'utf8')).diskIdentity).toMatchObject({
      kind: 'partition',
      facts: { partition: UUID, partitionNumber: '1' },
    })
    await lead(link, other.path)
    expect(notes(await lab.run(name, ['restore']))).toContain(`disk is now ${own.path}`)
    expect(await isUntouched(other)).toBe(true)
  })

  it('is an image file by its path, also if another file is put there', async () => {
    const disk = lab.path('file.img')
    await writeFile(disk, new Uint8Array(image.byteLength))
    const name = await machineWith(disk)
    await copyFile(disk, `${disk}.new`)
    await rm(disk)
    await copyFile(`${disk}.new`, disk)
    expect(await lab.run(name, ['restore'])).toMatchObject({ code: 0, stderr: '' })
    expect(await lab.run(name, ['restore', '--disk', `${disk}.new`])).toMatchObject({ code: 3 })
  })

  it('is learned by a machine that was made before disks were known', async (context) => {
    const own = await device(context, 'old', ['ID_SERIAL=OLD'])
    const name = await machineWith(own.path)
    const file = lab.path(name, 'machine.json')
    const { diskIdentity: _, ...machine } = JSON.parse(await readFile(file, 'utf8'))
    await writeFile(file, JSON.stringify(machine))
    expect(notes(await lab.run(name, ['restore']))).toContain('from now on')
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      diskIdentity: { facts: { udevName: `OLD-${process.pid}` } },
    })
  })

  it('is not published by mistake', async (context) => {
    const own = await device(context, 'model', ['ID_SERIAL=MODEL'])
    const other = await device(context, 'stick', ['ID_SERIAL=STICK'])
    const link = lab.path('model')
    await lead(link, own.path)
    await lab.ok('second-master', ['seed', link, '--once', '--image', 'model'])
    await lead(link, other.path)
    const refused = await lab.run('second-master', ['seed', link, '--once'])
    expect(refused).toMatchObject({ code: 3, result: { code: 'DISK_OTHER' } })
    expect(String(refused.result?.message)).toMatch(/STICK.*MODEL/)
    expect(await lab.ok('second-master', ['seed', link, '--once', '--accept-new-disk', '--force'])).toMatchObject({
      release: 2,
    })
  })
})

interface Device {
  readonly path: string
  readonly file: string
  readonly before: Buffer
}
