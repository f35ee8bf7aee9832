import { execFile } from 'node:child_process'
import { copyFile, cp, open, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { decodeHeader, encodeHeader, SECTOR_BYTES } from '../../node/writelog/log-layout.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, startMaster } from '../support/fixtures.ts'
import { attachLoop, tellUdev } from '../support/real-devices.ts'
import { testSeed } from '../support/seed.ts'

/** So many that the audit of a clean log seldom meets the one block that was changed; all of them are looked at by a scan. */
const BLOCKS = 512
const UUID = '0fc63daf-8483-4772-8e79-3d69d8477d22'
const run = promisify(execFile)

describe('a write log that is not this disk’s, or not the newest', () => {
  const random = new Random(testSeed('log witness'))
  let lab: Lab
  let image: Buffer
  let machines = 0

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
  })
  afterAll(() => lab.close())

  /** A loop device over a copy of the image, in which one block is another one. */
  async function copyOnDevice(context: TestContext, name: string, wrong: number[] = []): Promise<Copy> {
    const file = lab.path(`${name}.img`)
    await writeFile(file, image)
    await damage(file, wrong)
    return { file, device: await attachLoop(file, context) }
  }

  async function damage(file: string, blocks: readonly number[]): Promise<void> {
    await using opened = await open(file, 'r+')
    for (const block of blocks) await opened.write(random.bytes(100), 0, 100, block * BLOCK)
  }

  /** A machine whose disk is restored, with a log that is clean. */
  async function machineWith(disk: string): Promise<string> {
    const name = `pc${++machines}`
    await lab.ok(name, ['join', await lab.invite('master', 1), '--disk', disk, '--name', name])
    await session(name)
    await lab.ok(name, ['restore'])
    return name
  }

  /** Writes one granule of a block through the monitor. */
  async function session(name: string, block?: number): Promise<void> {
    const socket = lab.path(`${name}.sock`)
    const monitor = await lab.start(name, ['monitor', '--nbd', `unix:${socket}`])
    await monitor.event('monitoring')
    const write = `write -P ${1 + random.below(255)} ${(block ?? 0) * BLOCK} 4k`
    if (block !== undefined)
      await runTool('qemu-io', ['-f', 'raw', '-c', write, '-c', 'flush', `nbd+unix:///?socket=${socket}`])
    await monitor.stop()
  }

  async function isImage(file: string, device?: string): Promise<boolean> {
    if (device !== undefined) await run('blockdev', ['--flushbufs', device])
    return (await readFile(file)).equals(image)
  }

  const unknown = (reason: RegExp) => ({
    verified: true,
    log: { state: 'unknown', reason: expect.stringMatching(reason), witness: 'none' },
  })

  it('is believed as long as all witnesses agree, which the receipt names', async (context) => {
    const { device } = await copyOnDevice(context, 'calm')
    const name = await machineWith(device)
    expect(await lab.ok(name, ['restore'])).toMatchObject({
      log: { state: 'clean', witness: 'log file, file times, device counter' },
    })
    const file = lab.path('plain.img')
    await writeFile(file, image)
    const other = await machineWith(file)
    expect(await lab.ok(other, ['restore'])).toMatchObject({ log: { state: 'clean', witness: 'log file, file times' } })
  })

  it('is of the disk that was there before a clone was put in its place', async (context) => {
    const [own, clone] = [await copyOnDevice(context, 'own'), await copyOnDevice(context, 'clone', [300])]
    await tellUdev(own.device, ['ID_SERIAL=OWN', `ID_PART_ENTRY_UUID=${UUID}`])
    await tellUdev(clone.device, ['ID_SERIAL=CLONE', `ID_PART_ENTRY_UUID=${UUID}`])
    const link = lab.path('disk')
    await symlink(own.device, link)
    const name = await machineWith(link)
    await rm(link)
    await symlink(clone.device, link)
    const outcome = await lab.run(name, ['restore'])
    expect(outcome.result).toMatchObject({ ...unknown(/of another disk/), blocks: { dirty: 1 } })
    const texts = outcome.events.filter(({ event }) => event === 'warning').map(({ text }) => String(text))
    expect(texts.join()).toMatch(/replaced by a copy of it.*CLONE.*OWN/)
    expect(await isImage(clone.file, clone.device)).toBe(true)
    // From now on the clone is the disk, and has a log of its own.
    expect(await lab.ok(name, ['restore'])).toMatchObject({ log: { state: 'clean' } })
  })

  it('is of another file behind the same loop device', async (context) => {
    const own = await copyOnDevice(context, 'behind')
    const other = lab.path('other.img')
    await copyFile(own.file, other)
    await damage(other, [200])
    const name = await machineWith(own.device)
    await run('losetup', ['--detach', own.device])
    await run('losetup', [own.device, other])
    expect(await lab.ok(name, ['restore'])).toMatchObject({ ...unknown(/image file/), blocks: { dirty: 1 } })
    expect(await isImage(other, own.device)).toBe(true)
  })

  it('is older than the disk where the state directory came back from a copy', async () => {
    const file = lab.path('snapshot.img')
    await writeFile(file, image)
    const name = await machineWith(file)
    const [state, copy] = [lab.path(name), lab.path(`${name}.copy`)]
    await run('cp', ['-a', state, copy])
    await session(name, 100)
    await rm(state, { recursive: true })
    await run('cp', ['-a', copy, state])
    expect(await lab.ok(name, ['restore'])).toMatchObject({ ...unknown(/the log is a copy/), blocks: { dirty: 1 } })
    expect(await isImage(file)).toBe(true)
    expect(await lab.ok(name, ['restore'])).toMatchObject({ log: { state: 'clean' } })
  })

  it('is older than the disk also where the files of the state directory stayed the same', async () => {
    const file = lab.path('in-place.img')
    await writeFile(file, image)
    const name = await machineWith(file)
    const state = lab.path(name)
    await cp(state, `${state}.copy`, { recursive: true, filter: (path) => !path.endsWith('.sock') })
    await session(name, 100)
    // As after the snapshot of a file system: the log's file is itself, with its old content.
    await overwrite(join(`${state}.copy`, 'write-log'), join(state, 'write-log'))
    expect(await lab.ok(name, ['restore'])).toMatchObject({
      ...unknown(/written after the log was closed/),
      blocks: { dirty: 1 },
    })
    expect(await isImage(file)).toBe(true)
  })

  describe('of which nothing on the machine tells', () => {
    /** The state goes back to before the last session, as if the disk had no witness; one block is wrong and not in the log. */
    async function rolledBack(name: string, file: string): Promise<void> {
      await writeFile(file, image)
      expect(await machineWith(file)).toBe(name)
      const state = lab.path(name)
      await cp(state, `${state}.copy`, { recursive: true, filter: (path) => !path.endsWith('.sock') })
      await session(name, 100)
      await lab.ok(name, ['restore'])
      const up = await lab.serve(name, ['up'])
      const gathered = async (): Promise<unknown> =>
        (await lab.ok('master', ['receipts', '--now', '--machine', name])).receipts
      await expect.poll(gathered, { interval: 200 }).toHaveLength(2)
      await up.stop()
      await session(name, 200)
      await overwrite(join(`${state}.copy`, 'write-log'), join(state, 'write-log'))
      await rm(join(state, 'db'), { recursive: true })
      await cp(join(`${state}.copy`, 'db'), join(state, 'db'), { recursive: true })
      await forgetStamp(join(state, 'write-log', 'bitmap'))
    }

    it('is doubted by a restore that needs the network, as the master has seen newer receipts', async () => {
      const name = `pc${machines + 1}`
      const file = lab.path('peers.img')
      await rolledBack(name, file)
      await session(name, 5)
      expect(await lab.ok(name, ['restore'])).toMatchObject({
        ...unknown(/master has receipt 2 of this machine, which knows of 1/),
        blocks: { dirty: 2 },
      })
      expect(await isImage(file)).toBe(true)
      await session(name, 6)
      expect(await lab.ok(name, ['restore'])).toMatchObject({
        log: { state: 'dirty', witness: expect.stringMatching(/, peers$/) },
      })
    })

    it('is doubted by the next restore where `mesh up` hears of it, and the master says so', async () => {
      const name = `pc${machines + 1}`
      const file = lab.path('heard.img')
      await rolledBack(name, file)
      const up = await lab.serve(name, ['up'])
      const warning = await up.when(({ event, text }) => event === 'warning' && /went back in time/.test(String(text)))
      expect(warning).toBeDefined()
      await up.stop()
      expect(await lab.ok(name, ['restore'])).toMatchObject({ ...unknown(/went back in time/), blocks: { dirty: 1 } })
      expect(await isImage(file)).toBe(true)
      const { wentBack } = await lab.ok('master', ['receipts', '--machine', name])
      expect(wentBack).toMatchObject([{ machine: name, number: 2 }])
    })
  })

  it('was put back by a program that keeps times', async () => {
    const file = lab.path('times.img')
    await writeFile(file, image)
    const name = await machineWith(file)
    const log = lab.path(name, 'write-log', 'bitmap')
    const { mtimeMs } = await stat(log)
    await utimes(log, mtimeMs / 1000 - 60, mtimeMs / 1000 - 60)
    expect(await lab.ok(name, ['restore'])).toMatchObject(unknown(/changed by another program/))
    expect(await lab.ok(name, ['restore'])).toMatchObject({ log: { state: 'clean' } })
  })
})

/** Writes the content of files into the files of another folder, which stay the same files. */
async function overwrite(from: string, to: string): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (!entry.isFile()) continue
    await using file = await open(join(to, entry.name), 'r+')
    const content = await readFile(join(from, entry.name))
    await file.truncate(content.byteLength)
    await file.write(content, 0, content.byteLength, 0)
  }
}

/** The log says no longer what the disk looked like when it was closed. */
async function forgetStamp(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  const sector = Buffer.alloc(SECTOR_BYTES)
  await file.read(sector, 0, SECTOR_BYTES, 0)
  const header = decodeHeader(sector)
  if (typeof header === 'string') throw new Error(header)
  await file.write(encodeHeader({ ...header, stamp: '' }), 0, SECTOR_BYTES, 0)
}

interface Copy {
  readonly file: string
  readonly device: string
}
