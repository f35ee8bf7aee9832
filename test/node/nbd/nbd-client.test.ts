import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { NbdClient } from '../../../node/nbd/nbd-client.ts'
import { openNbdDevice } from '../../../node/nbd/nbd-device.ts'
import type { Extent } from '../../../node/nbd/nbd-export.ts'
import { ALLOCATION_CONTEXT } from '../../../node/nbd/nbd-protocol.ts'
import { parseNbdUri } from '../../../node/nbd/nbd-uri.ts'
import { byteOffset } from '../../../protocol/units.ts'
import { codeOf } from '../../support/error-code.ts'
import { nbdkit, startNbd } from '../../support/nbd-process.ts'
import { useTempDir } from '../../support/temp-dir.ts'

const MIB = 1024 ** 2
const dir = useTempDir()
let files = 0

async function makeFile(content: Uint8Array): Promise<string> {
  const path = dir(`disk-${files++}`)
  await writeFile(path, content)
  return path
}

async function withClient<Result>(
  uri: string,
  use: (client: NbdClient) => Promise<Result>,
  options: Parameters<typeof NbdClient.connect>[1] = {},
): Promise<Result> {
  const client = await NbdClient.connect(uri, options)
  try {
    return await use(client)
  } finally {
    await client.close()
  }
}

async function allExtents(client: NbdClient, context: string): Promise<Extent[]> {
  const found: Extent[] = []
  for await (const extent of client.blockStatus(context, 0, client.size)) found.push(extent)
  return found
}

describe('NBD addresses', () => {
  it.each([
    ['nbd://host/disk', { host: 'host', port: 10809 }, 'disk'],
    ['nbd://host:80', { host: 'host', port: 80 }, ''],
    ['nbd://[::1]:10810/a%20b/c', { host: '::1', port: 10810 }, 'a b/c'],
    ['nbd+unix:///disk?socket=/run/a+b.sock', { path: '/run/a+b.sock' }, 'disk'],
    ['nbd+unix://?socket=%2Frun%2Fx', { path: '/run/x' }, ''],
  ])('reads %s', (uri, socket, exportName) => {
    expect(parseNbdUri(uri)).toEqual({ uri, socket, exportName })
  })

  it.each(['http://host', 'nbd+unix:///disk', 'nbd://', 'nbd://host:99999', 'nbd+unix://host/x?socket=/y', 'disk.img'])(
    'refuses %s',
    async (uri) => expect(await codeOf(async () => parseNbdUri(uri))).toBe('NBD_ADDRESS_INVALID'),
  )

  it('says that TLS is not supported', () => {
    expect(() => parseNbdUri('nbds://host/x')).toThrow('nbds://host/x: NBD over TLS is not supported')
  })
})

describe('the NBD client', () => {
  it('reads and writes what nbdkit serves, with many requests under way', async () => {
    const content = randomBytes(6 * MIB)
    const path = await makeFile(content)
    const { uri } = await nbdkit('file', path)
    await withClient(uri(), async (client) => {
      expect(client.facts).toMatchObject({ size: 6 * MIB, readOnly: false, canFlush: true, structured: true })
      const whole = Buffer.alloc(6 * MIB)
      await client.read(0, whole)
      expect(whole.equals(content)).toBe(true)
      await Promise.all(
        Array.from({ length: 300 }, async (_, i) => {
          const piece = Buffer.alloc(1000, i)
          piece.copy(content, i * 20_000)
          await client.write(i * 20_000, piece, { fua: i % 50 === 0 })
          const back = Buffer.alloc(1000)
          await client.read(i * 20_000, back)
          expect(back.equals(piece)).toBe(true)
        }),
      )
      const long = randomBytes(3 * MIB)
      long.copy(content, MIB)
      await client.write(MIB, long)
      await client.flush()
      expect((await readFile(path)).equals(content)).toBe(true)
    })
  })

  it('reads from a server without structured replies', async () => {
    const content = randomBytes(MIB)
    const { uri } = await nbdkit('--no-sr', 'file', await makeFile(content))
    await withClient(
      uri(),
      async (client) => {
        expect(client.facts.structured).toBe(false)
        const back = Buffer.alloc(MIB)
        await client.read(0, back)
        expect(back.equals(content)).toBe(true)
        expect(await codeOf(() => allExtents(client, ALLOCATION_CONTEXT))).toBe('NBD_UNSUITABLE')
      },
      { contexts: [ALLOCATION_CONTEXT] },
    )
  })

  it('reads holes, and block status, from qemu-nbd', async () => {
    const content = Buffer.alloc(8 * MIB)
    randomBytes(64 * 1024).copy(content, 2 * MIB)
    const path = await makeFile(content)
    const { uri } = await startNbd('qemu-nbd', (socket) => ['-t', '-k', socket, '-f', 'raw', '-x', 'disk', path])
    await withClient(
      uri('disk'),
      async (client) => {
        const back = Buffer.alloc(8 * MIB, 1)
        await client.read(0, back)
        expect(back.equals(content)).toBe(true)
        const extents = await allExtents(client, ALLOCATION_CONTEXT)
        expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(8 * MIB)
        expect(await codeOf(() => allExtents(client, 'qemu:dirty-bitmap:none'))).toBe('NBD_UNSUITABLE')
      },
      { contexts: [ALLOCATION_CONTEXT, 'qemu:dirty-bitmap:none'] },
    )
    expect(await codeOf(() => NbdClient.connect(uri('other')))).toBe('NBD_ADDRESS_INVALID')
  })

  it('asks again where a server tells of a part only', async () => {
    const { uri } = await nbdkit(
      '--filter=extentlist',
      'null',
      '3G',
      `extentlist=${await makeFile(Buffer.from('0 1G\n1G 512 hole,zero\n2G 1G hole,zero\n'))}`,
    )
    await withClient(
      uri(),
      async (client) => {
        const merged: Extent[] = []
        for (const extent of await allExtents(client, ALLOCATION_CONTEXT)) {
          const last = merged.at(-1)
          if (last?.flags === extent.flags) merged[merged.length - 1] = { ...last, length: last.length + extent.length }
          else merged.push({ length: extent.length, flags: extent.flags })
        }
        expect(merged).toEqual([
          { length: 1024 * MIB, flags: 0 },
          { length: 2048 * MIB, flags: 3 },
        ])
      },
      { contexts: [ALLOCATION_CONTEXT] },
    )
  })

  it('takes as many extents in one answer as servers send', async () => {
    const pieces = 400_000
    const lines = Array.from({ length: pieces / 2 }, (_, i) => `${i * 1024} 512\n${i * 1024 + 512} 512 hole,zero\n`)
    const list = await makeFile(Buffer.from(lines.join('')))
    const { uri } = await nbdkit('--filter=extentlist', 'null', `${pieces * 512}`, `extentlist=${list}`)
    await withClient(
      uri(),
      async (client) => {
        const found = await allExtents(client, ALLOCATION_CONTEXT)
        expect(found.length).toBe(pieces)
        expect(found.every(({ length, flags }, i) => length === 512 && flags === (i % 2 === 0 ? 0 : 3))).toBe(true)
      },
      { contexts: [ALLOCATION_CONTEXT] },
    )
  })

  it('passes the errors of the server on, naming the address, and goes on', async () => {
    const { uri } = await nbdkit(
      '--filter=error',
      'memory',
      '1M',
      'error-pread=EIO',
      'error-pwrite=ENOSPC',
      'error-pread-rate=100%',
      'error-pwrite-rate=100%',
    )
    await withClient(uri(), async (client) => {
      for (let i = 0; i < 2; i++) {
        await expect(client.read(4096, Buffer.alloc(512))).rejects.toMatchObject({
          code: 'DISK_IO',
          message: expect.stringMatching(`reading nbd\\+unix:.* failed at byte 4096: EIO`),
        })
        await expect(client.write(0, Buffer.alloc(512))).rejects.toMatchObject({ code: 'DISK_FULL' })
      }
      await client.flush()
    })
  })

  it('fails what is under way, and everything after, when the server is killed', async () => {
    const server = await nbdkit('--filter=delay', 'memory', '1M', 'delay-write=60')
    await withClient(server.uri(), async (client) => {
      const under = [client.write(0, Buffer.alloc(512)), client.write(512, Buffer.alloc(512))]
      const settled = Promise.allSettled(under)
      await client.read(0, Buffer.alloc(512))
      await server.end('SIGKILL')
      expect((await settled).map((it) => (it.status === 'rejected' ? it.reason.code : it.status))).toEqual([
        'NBD_UNREACHABLE',
        'NBD_UNREACHABLE',
      ])
      expect(await codeOf(() => client.read(0, Buffer.alloc(512)))).toBe('NBD_UNREACHABLE')
      expect(await codeOf(() => client.flush())).toBe('NBD_UNREACHABLE')
    })
    expect(await codeOf(() => NbdClient.connect(server.uri()))).toBe('NBD_UNREACHABLE')
  })

  it('says so when the server wants TLS', async () => {
    const keys = await makeFile(Buffer.from('lab:0123456789abcdef0123456789abcdef\n'))
    const { uri } = await nbdkit('--tls=require', `--tls-psk=${keys}`, 'memory', '1M')
    await expect(NbdClient.connect(uri())).rejects.toMatchObject({
      code: 'NBD_UNSUITABLE',
      message: expect.stringContaining('wants TLS'),
    })
  })

  it('does not wait for an answer for ever', async () => {
    const { uri } = await nbdkit('--filter=delay', 'memory', '1M', 'delay-read=60')
    await withClient(
      uri(),
      async (client) => {
        expect(await codeOf(() => client.read(0, Buffer.alloc(512)))).toBe('REQUEST_TIMEOUT')
        expect(await codeOf(() => client.write(0, Buffer.alloc(512)))).toBe('REQUEST_TIMEOUT')
      },
      { replyMs: 100 },
    )
  })
})

describe('an NBD export as a disk', () => {
  it('keeps what was flushed when the server is killed', async () => {
    const path = await makeFile(Buffer.alloc(MIB))
    const server = await nbdkit('file', path)
    const device = await openNbdDevice(server.uri(), { writable: true })
    const data = randomBytes(4096)
    await device.write(byteOffset(8192), data)
    await device.flush()
    await server.end('SIGKILL')
    expect(await codeOf(() => device.flush())).toBe('NBD_UNREACHABLE')
    await device.close()
    expect((await readFile(path)).subarray(8192, 12288).equals(data)).toBe(true)
  })

  it('fails from the first failed flush or write on', async () => {
    const failing = dir(`failing-${files++}`)
    await writeFile(failing, '')
    const { uri } = await nbdkit(
      '--filter=error',
      'memory',
      '1M',
      'error-pwrite=EIO',
      'error-pwrite-rate=100%',
      `error-pwrite-file=${failing}`,
    )
    const device = await openNbdDevice(uri(), { writable: true })
    expect(await codeOf(() => device.write(byteOffset(0), Buffer.alloc(512)))).toBe('DISK_IO')
    expect(await codeOf(() => device.flush())).toBe('DISK_IO')
    await device.close()
  })

  it.each<[string, string[], string]>([
    ['read-only', ['--readonly', 'memory', '1M'], 'is read-only'],
    [
      'without flush',
      ['eval', 'get_size=echo 1048576', 'pread=exit 1', 'pwrite=exit 1', 'can_write=exit 0', 'can_flush=exit 3'],
      'offers no flush',
    ],
    [
      'of large sectors',
      [
        '--filter=blocksize-policy',
        'memory',
        '1M',
        'blocksize-minimum=4096',
        'blocksize-preferred=4096',
        'blocksize-maximum=1M',
      ],
      'multiples of 4096 bytes',
    ],
  ])('refuses an export %s', async (_, args, message) => {
    const { uri } = await nbdkit(...args)
    await expect(openNbdDevice(uri(), { writable: true })).rejects.toMatchObject({
      code: 'NBD_UNSUITABLE',
      message: expect.stringContaining(message),
    })
  })

  it('refuses an empty one', async () => {
    const { uri } = await nbdkit('memory', '0')
    expect(await codeOf(() => openNbdDevice(uri(), { writable: true }))).toBe('DISK_EMPTY')
  })
})
