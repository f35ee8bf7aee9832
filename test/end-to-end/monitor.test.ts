import { once } from 'node:events'
import { copyFile, mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { freePort, Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { hasTool, runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, joinMachine, startMaster } from '../support/fixtures.ts'
import { RawNbd, requestBytes } from '../support/raw-nbd.ts'
import { attachLoop, mount } from '../support/real-devices.ts'
import { testSeed } from '../support/seed.ts'

const BLOCKS = 256
const GRANULE = 4096
const MIB = 1024 ** 2
const TOOLS = ['nbdinfo', 'nbdcopy', 'nbdsh', 'qemu-img', 'qemu-io', 'fio', 'systemd-socket-activate']
const hasClients = (await Promise.all(TOOLS.map(hasTool))).every(Boolean)
if (!hasClients) console.warn(`SKIPPED: needs ${TOOLS.join(', ')}`)

describe('mesh monitor', () => {
  const random = new Random(testSeed('monitor'))
  let lab: Lab
  let image: Buffer
  let disk: string

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    await joinMachine(lab, 'm1', image, await lab.invite('master'))
    await lab.ok('m1', ['restore'])
    disk = lab.path('m1.img')
  })
  afterAll(() => lab.close())

  interface Served {
    readonly running: MeshProcess
    readonly uri: string
    readonly socket: string
  }

  /** A monitor of m1's disk, whose log begins with no marks unless `keepLog`. */
  async function monitor(options: { args?: string[]; keepLog?: boolean } = {}): Promise<Served> {
    if (options.keepLog !== true) await rm(lab.path('m1', 'write-log'), { recursive: true, force: true })
    const socket = lab.path('m1.nbd')
    const running = await lab.start('m1', ['monitor', disk, '--nbd', `unix:${socket}`, ...(options.args ?? [])])
    const { uri } = await running.event('monitoring')
    return { running, uri: String(uri), socket }
  }

  async function withMonitor(work: (served: Served) => Promise<void>, args: string[] = []): Promise<void> {
    const served = await monitor({ args })
    try {
      await work(served)
    } finally {
      const outcome = await served.running.stop()
      expect(outcome.code, outcome.stderr).toBe(0)
      expect(outcome.result).toMatchObject({ event: 'stopped' })
    }
  }

  /** Extents with flags set, in granules. */
  async function dirtyGranules(uri: string): Promise<number[][]> {
    const extents: { offset: number; length: number; type: number }[] = JSON.parse(
      await runTool('nbdinfo', ['--json', '--map=lab-mesh:dirty', uri]),
    )
    expect(extents.reduce((end, { offset, length }) => (offset === end ? offset + length : Number.NaN), 0)).toBe(
      image.byteLength,
    )
    return extents
      .filter(({ type }) => type === 1)
      .map(({ offset, length }) => [offset / GRANULE, (offset + length) / GRANULE])
  }

  describe.skipIf(!hasClients)('serves real clients', () => {
    it('nbdinfo: what it offers', () =>
      withMonitor(async ({ uri, socket }) => {
        expect(uri).toBe(`nbd+unix:///?socket=${socket}`)
        expect((await stat(socket)).mode & 0o777).toBe(0o600)
        const listed = JSON.parse(await runTool('nbdinfo', ['--json', '--list', uri]))
        expect(listed).toMatchObject({ protocol: 'newstyle-fixed', TLS: false, structured: true })
        expect(listed.exports).toMatchObject([
          {
            'export-name': 'm1.img',
            description: `${disk}, writes logged by lab-mesh`,
            'export-size': image.byteLength,
            contexts: ['base:allocation', 'lab-mesh:dirty'],
            is_read_only: false,
            can_cache: true,
            can_df: true,
            can_fast_zero: false,
            can_flush: true,
            can_fua: true,
            can_multi_conn: true,
            can_trim: true,
            can_zero: true,
            block_size_minimum: 1,
            block_size_preferred: 4096,
            block_size_maximum: 32 * MIB,
          },
        ])
        expect(await runTool('nbdinfo', ['--map', uri])).toMatch(/^\s+0\s+16777216\s+0\s+data\n$/)
      }))

    it('nbdcopy: both ways, over several connections', () =>
      withMonitor(async ({ uri }) => {
        const content = Buffer.from(random.bytes(image.byteLength))
        await writeFile(lab.path('new.img'), content)
        await runTool('nbdcopy', ['--connections=4', '--flush', lab.path('new.img'), uri])
        expect((await readFile(disk)).equals(content)).toBe(true)
        await runTool('nbdcopy', ['--connections=4', uri, lab.path('back.img')])
        expect((await readFile(lab.path('back.img'))).equals(content)).toBe(true)
        expect(await dirtyGranules(uri)).toEqual([[0, image.byteLength / GRANULE]])
      }))

    it('qemu-img: convert, compare, map', () =>
      withMonitor(async ({ uri }) => {
        await writeFile(lab.path('new.img'), random.bytes(image.byteLength))
        const raw = ['-f', 'raw', '-F', 'raw']
        await runTool('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', lab.path('new.img'), uri])
        expect(await runTool('qemu-img', ['compare', ...raw, lab.path('new.img'), uri])).toMatch(/identical/)
        const map = JSON.parse(await runTool('qemu-img', ['map', '--output=json', '-f', 'raw', uri]))
        expect(map).toMatchObject([{ start: 0, length: image.byteLength, zero: false, data: true }])
        await copyFile(disk, lab.path('other.img'))
        const file = await open(lab.path('other.img'), 'r+')
        await file.write(Buffer.of(1, 2, 3), 0, 3, 5 * MIB)
        await file.close()
        await expect(runTool('qemu-img', ['compare', ...raw, lab.path('other.img'), uri])).rejects.toThrow(
          /Content mismatch at offset 5242880/,
        )
      }))

    it('qemu-io: patterns, zeroes, discards, FUA; marks exactly the granules written', () =>
      withMonitor(async ({ uri }) => {
        const before = await readFile(disk)
        const commands = [
          'write -P 0xab 4096 8192',
          'write -f -P 0xcd 1000k 3000',
          'writev -P 0xef 2M 4k 5000',
          'write -z 3M 1M',
          'write -z -u 4M 64k',
          'discard 8M 1M',
          'flush',
          'read -P 0xab 4096 8192',
          'read -P 0xcd 1000k 3000',
          'read -P 0xef 2M 9096',
          'read -P 0 3M 1114112',
        ]
        const printed = await runTool('qemu-io', ['-f', 'raw', ...commands.flatMap((c) => ['-c', c]), uri])
        expect(printed).not.toMatch(/failed|error/i)
        const expected = Buffer.from(before)
          .fill(0xab, 4096, 12288)
          .fill(0xcd, 1000 * 1024, 1000 * 1024 + 3000)
          .fill(0xef, 2 * MIB, 2 * MIB + 9096)
          .fill(0, 3 * MIB, 4 * MIB + 65536)
        const after = await readFile(disk)
        // A discard may leave anything.
        for (const bytes of [expected, after]) bytes.fill(0, 8 * MIB, 9 * MIB)
        expect(after.equals(expected)).toBe(true)
        expect(await dirtyGranules(uri)).toEqual([
          [1, 3],
          [250, 251],
          [512, 515],
          [768, 1040],
          [2048, 2304],
        ])
      }))

    it('fio: random writes and reads at depth 16 with checksums', () =>
      withMonitor(async ({ uri }) => {
        const job = [
          '--name=verify',
          '--ioengine=nbd',
          `--uri=${uri}`,
          '--rw=randrw',
          '--bsrange=512-64k',
          '--bs_unaligned',
          '--iodepth=16',
          `--size=${image.byteLength}`,
          '--verify=crc32c',
          '--do_verify=1',
          '--verify_state_save=0',
          '--fsync=64',
          `--randseed=${random.seed}`,
        ]
        expect(await runTool('fio', job)).toMatch(/err= 0/)
      }))

    it('nbdsh: errors by the book, and the connection goes on', () =>
      withMonitor(async ({ uri }) => {
        const script = `
import errno
size = h.get_size()
h.set_strict_mode(0)
def fails(expected, call, *args, **named):
    try:
        call(*args, **named)
    except nbd.Error as error:
        assert error.errnum == expected, (call, args, error.errno)
    else:
        raise AssertionError(("no error", call, args))
data = bytes(512)
fails(errno.EINVAL, h.pread, 512, size - 511)
fails(errno.EINVAL, h.pread, 512, 1 << 62)
fails(errno.ENOSPC, h.pwrite, data, size - 511)
fails(errno.ENOSPC, h.zero, 512, size)
fails(errno.EINVAL, h.trim, 512, size - 511)
fails(errno.EINVAL, h.cache, 512, size)
fails(errno.EINVAL, h.pwrite, data, 0, 1 << 9)
fails(errno.EINVAL, h.zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
fails(errno.EOVERFLOW, h.pread, (32 << 20) + 1, 0)
fails(errno.EINVAL, h.block_status, 512, 0, lambda *_: 0)
fails(errno.EINVAL, h.pread, 0, 0)
h.pwrite(b"unaligned", 4093, nbd.CMD_FLAG_FUA)
assert h.pread(11, 4092)[1:10] == b"unaligned"
h.flush()
h.shutdown()
print("survived")
`
        expect(await runTool('env', ['PATH=/usr/bin:/bin', 'nbdsh', '-u', uri, '-c', script])).toBe('survived\n')
        expect(await dirtyGranules(uri)).toEqual([[0, 2]])
      }))

    it.each(['unix', 'tcp'])('systemd: takes over a listening %s socket', async (kind) => {
      const path = lab.path('activated.nbd')
      const where = kind === 'unix' ? path : `127.0.0.1:${await freePort()}`
      const running = new MeshProcess(
        ['monitor', disk, '--nbd', 'systemd', '--json', '--state', lab.path('m1')],
        {},
        { through: ['systemd-socket-activate', `--listen=${where}`] },
      )
      try {
        const uri = kind === 'unix' ? `nbd+unix:///?socket=${path}` : `nbd://${where}`
        // It is started by the first client, who has to wait for it.
        await expect
          .poll(() => runTool('nbdinfo', ['--size', uri]).catch(() => ''), { timeout: 20_000 })
          .toBe(`${image.byteLength}\n`)
        expect((await running.event('monitoring')).uri).toBe(kind === 'unix' ? '' : uri)
      } finally {
        expect((await running.stop()).code).toBe(0)
      }
      // It is systemd's.
      if (kind === 'unix') expect((await stat(path)).isSocket()).toBe(true)
    })

    it('--read-only: changes are refused', () =>
      withMonitor(
        async ({ uri, socket }) => {
          const before = await readFile(disk)
          expect(await runTool('nbdinfo', ['--is', 'readonly', uri])).toBe('')
          await runTool('nbdcopy', [uri, lab.path('back.img')])
          const client = await RawNbd.ready(socket)
          for (const command of [1, 4, 6])
            expect(
              await client.ask({ command, length: 512, ...(command === 1 ? { data: Buffer.alloc(512) } : {}) }),
            ).toMatchObject({
              error: 1,
            })
          client.close()
          expect((await readFile(disk)).equals(before)).toBe(true)
          expect((await readFile(lab.path('back.img'))).equals(before)).toBe(true)
        },
        ['--read-only'],
      ))
  })

  it('goes on when a client breaks the protocol or is gone in the middle of a write', () =>
    withMonitor(async ({ socket, running }) => {
      const other = await RawNbd.ready(socket)
      const broken = await RawNbd.ready(socket)
      broken.send(Buffer.alloc(28))
      await broken.disconnected()
      const warning = await running.event('warning')
      expect(String(warning.text)).toMatch(/^client 2: .*magic number/)
      const gone = await RawNbd.ready(socket)
      gone.send(requestBytes({ command: 1, offset: 0, data: Buffer.alloc(MIB) }).subarray(0, 300_000))
      gone.close()
      expect(await other.ask({ command: 3 })).toMatchObject({ error: 0 })
      other.close()
    }))

  it('SIGTERM: the log is closed over a flushed disk; SIGKILL: the marks are there', async () => {
    const first = await monitor()
    const writer = await RawNbd.ready(first.socket)
    await writer.ask({ command: 1, offset: 7 * GRANULE, data: Buffer.alloc(GRANULE, 1) })
    const stopped = await first.running.stop()
    expect(stopped.result).toMatchObject({ event: 'stopped', dirty: 1, flushes: expect.any(Number) })
    await writer.disconnected()

    const second = await monitor({ keepLog: true })
    expect(second.running.events.find(({ event }) => event === 'monitoring')).toMatchObject({ dirty: 1 })
    const other = await RawNbd.ready(second.socket)
    await other.ask({ command: 1, offset: 9 * GRANULE, data: Buffer.alloc(GRANULE, 1) })
    await second.running.stop('SIGKILL')

    // The socket that it left is taken over.
    const third = await monitor({ keepLog: true })
    expect(third.running.events.find(({ event }) => event === 'monitoring')).toMatchObject({ dirty: 2 })
    const reader = await RawNbd.ready(third.socket, { contexts: ['lab-mesh:dirty'] })
    const { chunk } = await reader.ask({ command: 7, offset: 0, length: 10 * GRANULE })
    const words = Array.from({ length: 9 }, (_, i) => chunk?.payload.readUInt32BE(i * 4))
    expect(words).toEqual([1, 7 * GRANULE, 0, GRANULE, 1, GRANULE, 0, GRANULE, 1])
    expect((await third.running.stop()).code).toBe(0)
  })

  describe('wrong input', () => {
    async function fails(
      machine: string,
      args: string[],
      code: ErrorCode,
      exit: number,
      message: RegExp,
    ): Promise<void> {
      const outcome = await lab.run(machine, ['monitor', ...args])
      const text = `${args.join(' ')}\n${outcome.stdout}\n${outcome.stderr}`
      expect(outcome.result, text).toMatchObject({ event: 'error', code })
      expect(outcome.code, text).toBe(exit)
      expect(outcome.stderr, text).toMatch(message)
      expect(outcome.stderr, text).not.toMatch(/\n\s+at /)
    }
    const socket = (): string => `unix:${lab.path('m1.nbd')}`

    it('a disk that is missing, or not the own one', async () => {
      const missing = lab.path('missing.img')
      await fails('m1', [missing, '--nbd', socket()], 'DISK_MISSING', EXIT.disk, /missing\.img/)
      await writeFile(lab.path('other.img'), Buffer.alloc(BLOCK))
      const other = lab.path('other.img')
      await fails('m1', [other, '--nbd', socket()], 'DISK_NOT_OWN', EXIT.disk, /other\.img .*m1\.img/)
    })

    it('a disk that is mounted', async (context) => {
      await writeFile(lab.path('m2.img'), Buffer.alloc(BLOCKS * BLOCK))
      const device = await attachLoop(lab.path('m2.img'), context)
      await runTool('mke2fs', ['-q', '-F', device])
      await lab.ok('m2', ['join', await lab.invite('master'), '--disk', device, '--name', 'm2'])
      await mkdir(lab.path('mnt'))
      await mount(context, device, lab.path('mnt'))
      await fails('m2', [device, '--nbd', socket()], 'DISK_MOUNTED', EXIT.disk, /mnt/)
    })

    it('no state directory', () => fails('nobody', [disk, '--nbd', socket()], 'STATE_MISSING', EXIT.state, /nobody/))

    it('two monitors at once', () =>
      withMonitor(async () => {
        const elsewhere = `unix:${lab.path('second.nbd')}`
        await fails('m1', [disk, '--nbd', elsewhere, '--log', lab.path('log')], 'STATE_IN_USE', EXIT.state, /write log/)
        // The other one is what a restore goes by, still.
        expect(await readFile(lab.path('m1', 'write-log', 'config.json'), 'utf8')).not.toContain(lab.path('log'))
      }))

    it.each([
      ['unix:/no/such/directory/nbd', /ENOENT|EACCES/],
      [`unix:/tmp/${'x'.repeat(120)}`, /xxx/],
      ['tcp:192.0.2.1:10809', /EADDRNOTAVAIL/],
      ['tcp:no.such.host.invalid:10809', /no\.such\.host/],
    ])('an address that is not of this machine: %s', (address, message) =>
      fails('m1', [disk, '--nbd', address], 'NBD_ADDRESS_INVALID', EXIT.usage, message),
    )

    it('an address that is none', async () => {
      const addresses = ['nonsense', 'unix:', 'tcp:127.0.0.1', 'tcp:127.0.0.1:99999', 'systemd']
      await Promise.all(
        addresses.map((address) => fails('m1', [disk, '--nbd', address], 'USAGE', EXIT.usage, /unix:PATH|systemd/)),
      )
    })

    it('an address that is taken, by a server or by anything but a socket', async () => {
      const path = lab.path('taken.nbd')
      const server = createServer()
      server.listen(path)
      await once(server, 'listening')
      await fails('m1', [disk, '--nbd', `unix:${path}`], 'PORT_TAKEN', EXIT.network, /taken\.nbd/)
      server.close()
      const port = await freePort()
      server.listen(port, '127.0.0.1')
      await once(server, 'listening')
      await fails('m1', [disk, '--nbd', `tcp:127.0.0.1:${port}`], 'PORT_TAKEN', EXIT.network, new RegExp(`${port}`))
      server.close()
      await fails('m1', [disk, '--nbd', `unix:${lab.path('model.img')}`], 'PORT_TAKEN', EXIT.network, /model\.img/)
      expect((await stat(lab.path('model.img'))).size).toBe(image.byteLength)
    })
  })

  it('listens on TCP', async () => {
    const port = await freePort()
    const running = await lab.start('m1', ['monitor', disk, '--nbd', `tcp:127.0.0.1:${port}`])
    expect((await running.event('monitoring')).uri).toBe(`nbd://127.0.0.1:${port}`)
    const client = connect(port, '127.0.0.1')
    const [greeting] = await once(client, 'data')
    expect(String(greeting)).toMatch(/^NBDMAGICIHAVEOPT/)
    client.destroy()
    expect((await running.stop()).code).toBe(0)
  })
})
