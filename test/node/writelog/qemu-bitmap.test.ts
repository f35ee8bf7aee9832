import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, copyFile, open, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { NbdClient } from '../../../node/nbd/nbd-client.ts'
import { readDirtyExtents } from '../../../node/writelog/dirty-extents.ts'
import { DurableBitmap, logFileSize } from '../../../node/writelog/durable-bitmap.ts'
import { openLogStorage } from '../../../node/writelog/log-storage.ts'
import { QemuBitmap } from '../../../node/writelog/qemu-bitmap.ts'
import { QemuImage } from '../../../node/writelog/qemu-image.ts'
import { TrackedLog } from '../../../node/writelog/tracked-log.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { writeLogCompliance } from '../../compliance/write-log.ts'
import { codeOf } from '../../support/error-code.ts'
import { imaginedDisk } from '../../support/log-disk.ts'
import { useTempDir } from '../../support/temp-dir.ts'
import { startMachine } from '../../support/virtual-machine.ts'

const execute = promisify(execFile)
const MIB = 1024 ** 2
const SIZE = 16 * MIB
const UNIT = 4096
const dir = useTempDir()
let made = 0

/** A disk with random content, an image over it, and a period that has begun. */
async function tracked(options: { live?: string } = {}) {
  const name = `${made++}, with a comma`
  const [disk, image] = [dir(`${name}.raw`), dir(`${name}.qcow2`)]
  const content = randomBytes(SIZE)
  await writeFile(disk, content)
  const tracker = new QemuBitmap({ image, disk, ...options })
  return { disk, image, content, tracker, period: await tracker.begin() }
}

type Machine = (client: NbdClient) => Promise<void>

/** A machine runs, does something to its disk, and is shut down, or killed. */
async function session(image: string, use: Machine, end: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  const machine = await startMachine(image)
  const client = await NbdClient.connect(machine.uri('disk'))
  await use(client)
  await client.close()
  await machine.end(end)
}

const write =
  (unit: number, count = 1): Machine =>
  (client) =>
    client.write(unit * UNIT, randomBytes(count * UNIT))

const qemuImg = (...args: string[]) => execute('qemu-img', args)

/** The machine gives up, or zeroes, parts of its disk. */
async function qemuIo(image: string, ...commands: string[]): Promise<void> {
  await execute('qemu-io', ['-d', 'unmap', '-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), image])
}

async function known(tracker: QemuBitmap, period: string): Promise<[number, number][]> {
  const changes = await tracker.changedSince(period)
  if (changes.state === 'unknown') throw new Error(changes.reason)
  return [...changes.units.runs()].map(([start, end]) => [start, end])
}

async function poke(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'r+')
  await file.write(bytes, 0, bytes.length, offset)
  await file.close()
}

/** Spoils the table of the first bitmap (QEMU's docs/interop/qcow2.txt, "Bitmaps extension"). */
async function damageBitmaps(image: string): Promise<void> {
  const bytes = await readFile(image)
  const extension = bytes.indexOf(Buffer.from('23852875', 'hex'))
  const directory = Number(bytes.readBigUInt64BE(extension + 24))
  await poke(image, Number(bytes.readBigUInt64BE(directory)), Buffer.alloc(8, 0xff))
}

let logs = 0
/** The whole log over a disk, as each start of the agent opens it; kept in `storage`. */
function logOver({ image, disk }: { image: string; disk: string }, storage = dir(`log-${logs++}`)) {
  const facts = imaginedDisk(SIZE)
  const release = { release: 1, root: new Uint8Array(32).fill(1) }
  const start = async () => {
    const opened = await openLogStorage(storage, logFileSize(SIZE))
    onTestFinished(() => opened.storage.close())
    const bitmap = new DurableBitmap({ storage: opened.storage, disk: facts, source: 'qemu', release })
    if (opened.made !== undefined) await bitmap.format(opened.made)
    return new TrackedLog(bitmap, new QemuBitmap({ image, disk }))
  }
  return { start, storage }
}

/** A log that has begun with nothing dirty; no machine runs, so all tests of the suite can stand on the same image. */
let begun: Promise<{ image: string; disk: string; storage: string }> | undefined
async function begin() {
  const source = await tracked()
  const { start, storage } = logOver(source)
  const log = await start()
  await log.open()
  await log.reset(RangeSet.empty)
  await log.close()
  return { ...source, storage }
}

writeLogCompliance('TrackedLog over QEMU', async () => {
  begun ??= begin()
  const source = await begun
  const storage = dir(`log-${logs++}`)
  await copyFile(source.storage, storage)
  const { start } = logOver(source, storage)
  return { log: await start(), units: SIZE / UNIT, again: start }
})

describe('bitmaps of QEMU', () => {
  it('leave the disk as it is when they are made', async () => {
    const { disk, image, content, tracker, period } = await tracked()
    expect((await readFile(disk)).equals(content)).toBe(true)
    expect(await known(tracker, period)).toEqual([])
    await session(image, async (client) => {
      const seen = Buffer.alloc(SIZE)
      await client.read(0, seen)
      expect(seen.equals(content)).toBe(true)
    })
    expect(await known(tracker, period)).toEqual([])
  })

  it('tell exactly what machines wrote, zeroed and gave up since each period began', async () => {
    const { image, tracker, period } = await tracked()
    await session(image, write(3))
    await session(image, write(100, 20))
    const second = await tracker.begin()
    await qemuIo(image, 'write -z 1M 64k', 'discard 8M 1M', 'write -q 16773120 4096')
    const later: [number, number][] = [
      [256, 272],
      [2048, 2304],
      [4095, 4096],
    ]
    expect(await known(tracker, second)).toEqual(later)
    expect(await known(tracker, period)).toEqual([[3, 4], [100, 120], ...later])
    await tracker.end(second)
    expect(await known(tracker, second)).toEqual(later)
    expect(await tracker.changedSince(period)).toEqual({
      state: 'unknown',
      reason: expect.stringContaining('has no bitmap'),
    })
  })

  it('show a machine what a restore wrote past them, even where the machine had zeroed its disk', async () => {
    const source = await tracked()
    const { disk, image, content, tracker, period } = source
    await qemuIo(image, 'write -z 1M 1M', 'discard 8M 1M')
    const stale = dir('stale.qcow2')
    await copyFile(image, stale)
    const next = await tracker.begin()
    for (const [start, end] of await known(tracker, period))
      await poke(disk, start * UNIT, content.subarray(start * UNIT, end * UNIT))
    const look = async (file: string): Promise<boolean> => {
      let same = false
      await session(file, async (client) => {
        const seen = Buffer.alloc(SIZE)
        await client.read(0, seen)
        same = seen.equals(content)
      })
      return same
    }
    expect((await readFile(disk)).equals(content)).toBe(true)
    expect(await look(image)).toBe(true)
    expect(await known(tracker, next)).toEqual([])
    // This is what the image is made anew for.
    expect(await look(stale)).toBe(false)
  })

  it('are unknown once a machine was killed, until the next restore', async () => {
    const source = await tracked()
    const { image, tracker, period } = source
    const killed = { state: 'unknown', reason: `QEMU was killed: the bitmap ${period} was not stored` }
    await session(image, write(3), 'SIGKILL')
    expect(await tracker.changedSince(period)).toEqual(killed)
    await session(image, write(4))
    expect(await tracker.changedSince(period)).toEqual(killed)
    const next = await tracker.begin()
    await tracker.end(next)
    await session(image, write(5))
    expect(await known(tracker, next)).toEqual([[5, 6]])
  })

  it.each<[string, (it: Awaited<ReturnType<typeof tracked>>) => Promise<unknown>, RegExp]>([
    [
      'the bitmap was removed',
      ({ image, period }) => qemuImg('bitmap', '--remove', image, period),
      /has no bitmap lab-mesh-/,
    ],
    [
      'the bitmap was switched off',
      ({ image, period }) => qemuImg('bitmap', '--disable', image, period),
      /switched off/,
    ],
    [
      'the disk was cut short',
      ({ disk }) => truncate(disk, SIZE - MIB),
      /QEMU sees 16777216 bytes, the disk has 15728640/,
    ],
    ['the bitmap is damaged', ({ image }) => damageBitmaps(image), /Could not|could not|bitmap/],
    ['the image is missing', ({ image }) => rm(image), /is missing/],
    ['the image is cut short', ({ image }) => truncate(image, 1000), /could not|Could not/i],
  ])('are unknown when %s, and good again from the next restore on', async (_, harm, reason) => {
    const source = await tracked()
    await harm(source)
    const { tracker, period, image } = source
    expect(await tracker.changedSince(period)).toEqual({ state: 'unknown', reason: expect.stringMatching(reason) })
    const next = await tracker.begin()
    await tracker.end(next)
    await session(image, write(6))
    expect(await known(tracker, next)).toEqual([[6, 7]])
  })

  it.each<[string, (it: Awaited<ReturnType<typeof tracked>>) => Promise<unknown>, RegExp]>([
    [
      'the image is of another disk',
      async ({ disk, image }) => {
        await copyFile(disk, `${disk}.other`)
        await qemuImg('amend', '-o', `data_file=${disk.replaceAll(',', ',,')}.other`, image)
      },
      /keeps its content in .*\.other, which is not /,
    ],
    [
      'the image keeps its content itself',
      async ({ image }) => {
        await rm(image)
        await qemuImg('create', '-f', 'qcow2', image, `${SIZE}`)
      },
      /does not keep its content in a raw file/,
    ],
    ['the image is something else', ({ image }) => writeFile(image, 'x'.repeat(100_000)), /not in qcow2 format/],
  ])('are unknown when %s, which is never overwritten', async (_, harm, reason) => {
    const source = await tracked()
    await harm(source)
    const { tracker, period, image } = source
    const before = await readFile(image)
    expect(await tracker.changedSince(period)).toEqual({ state: 'unknown', reason: expect.stringMatching(reason) })
    expect(await codeOf(tracker.begin())).toBe('QEMU_FAILED')
    expect(await codeOf(tracker.prepare())).toBe('QEMU_FAILED')
    expect((await readFile(image)).equals(before)).toBe(true)
  })

  it('follow the disk to another path', async () => {
    const { disk, image, period } = await tracked()
    await rename(disk, `${disk}.moved`)
    const tracker = new QemuBitmap({ image, disk: `${disk}.moved` })
    expect((await tracker.changedSince(period)).state).toBe('unknown')
    await tracker.prepare()
    expect(await known(tracker, await tracker.begin())).toEqual([])
  })

  it('know nothing of a log that was never restored under them', async () => {
    const { tracker } = await tracked()
    expect(await tracker.changedSince('')).toEqual({ state: 'unknown', reason: 'no bitmap of QEMU goes with the log' })
  })

  it('keep the file’s mode and the bitmaps of others', async () => {
    const { disk, image, tracker, period } = await tracked()
    await qemuImg('bitmap', '--add', '-g', '65536', image, 'backup')
    await qemuImg('bitmap', '--add', '--disable', image, 'monday')
    await chmod(image, 0o640)
    await session(image, write(16))
    const next = await tracker.begin()
    await tracker.end(next)
    const { stdout } = await qemuImg('info', '--output=json', image)
    expect(JSON.parse(stdout)['format-specific'].data.bitmaps).toEqual([
      { flags: ['auto'], name: 'backup', granularity: 65536 },
      { flags: [], name: 'monday', granularity: 65536 },
      { flags: ['auto'], name: next, granularity: 4096 },
    ])
    expect((await stat(image)).mode & 0o777).toBe(0o640)
    expect(next).not.toBe(period)
    const backup = await new QemuImage(image, disk).readBitmap('backup')
    expect([...backup.bytes.runs()]).toEqual([[65536, 131072]])
  })

  it('are read from a machine that runs, through its export, and left alone', async () => {
    const { disk, image, tracker, period } = await tracked()
    const machine = await startMachine(image, [period])
    const client = await NbdClient.connect(machine.uri('disk'))
    await write(7, 2)(client)
    expect(await codeOf(tracker.changedSince(period))).toBe('DISK_IN_USE')
    expect(await codeOf(tracker.begin())).toBe('DISK_IN_USE')
    expect(await codeOf(tracker.end('none'))).toBe('DISK_IN_USE')
    const extents = await readDirtyExtents(machine.uri('disk'), period)
    expect([extents.size, ...extents.bytes.runs()]).toEqual([SIZE, [7 * UNIT, 9 * UNIT]])
    const look = new QemuBitmap({ image, disk, running: true })
    expect(await look.changedSince(period)).toEqual({
      state: 'unknown',
      reason: `QEMU is running, or was killed: the bitmap ${period} was not stored`,
    })
    const live = new QemuBitmap({ image, disk, running: true, live: machine.uri('disk') })
    expect(await known(live, period)).toEqual([[7, 9]])
    await write(20)(client)
    expect(await known(live, period)).toEqual([
      [7, 9],
      [20, 21],
    ])
    expect(await codeOf(readDirtyExtents(machine.uri('disk'), 'none'))).toBe('NBD_UNSUITABLE')
    await client.close()
    await machine.end()
    for (const one of [tracker, look, live])
      expect(await known(one, period)).toEqual([
        [7, 9],
        [20, 21],
      ])
  })

  it('are looked at without keeping a machine from being started', async () => {
    const { disk, image, period } = await tracked()
    const look = new QemuBitmap({ image, disk, running: true })
    let stop = false
    const looking = Array.from({ length: 4 }, async () => {
      while (!stop) await look.changedSince(period)
    })
    for (let i = 0; i < 5; i++) await session(image, write(i))
    stop = true
    await Promise.all(looking)
    expect(await known(look, period)).toEqual([[0, 5]])
  })

  it('name the package when QEMU’s tools are missing', async () => {
    const { tracker, period } = await tracked()
    vi.stubEnv('PATH', dir())
    try {
      expect(await codeOf(tracker.changedSince(period))).toBe('TOOL_MISSING')
      await expect(tracker.begin()).rejects.toMatchObject({ message: expect.stringContaining('package qemu-utils') })
    } finally {
      vi.unstubAllEnvs()
    }
  })

  it('are refused for a disk that does not end with a whole sector', async () => {
    const { disk, tracker } = await tracked()
    await truncate(disk, SIZE + 100)
    await expect(tracker.begin()).rejects.toMatchObject({
      code: 'QEMU_FAILED',
      message: expect.stringContaining('sectors'),
    })
  })

  it('stop a restore where no image can be made', async () => {
    const { disk } = await tracked()
    const tracker = new QemuBitmap({ image: dir('no', 'such', 'folder.qcow2'), disk })
    expect(await codeOf(tracker.begin())).toBe('QEMU_FAILED')
  })
})

describe('a log over bitmaps of QEMU', () => {
  it('has each session’s writes once', async () => {
    const source = await tracked()
    const { start } = logOver(source)
    const first = await start()
    expect((await first.open()).state).toBe('unknown')
    await first.reset(RangeSet.empty)
    await first.close()
    const dirtyAfter = async (unit: number): Promise<[number, number][]> => {
      await session(source.image, write(unit))
      const log = await start()
      expect(await log.open()).toEqual({ state: 'dirty' })
      const runs = [...(await log.dirty()).runs()].map(([a, b]): [number, number] => [a, b])
      await log.clear(await log.dirty())
      await log.close()
      return runs
    }
    expect(await dirtyAfter(9)).toEqual([[9, 10]])
    expect(await dirtyAfter(11)).toEqual([[11, 12]])
    const last = await start()
    expect(await last.open()).toEqual({ state: 'clean' })
    await last.close()
  })
})
