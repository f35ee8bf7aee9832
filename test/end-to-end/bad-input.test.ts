import { createHash } from 'node:crypto'
import { cp, mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { toHex } from '../../protocol/digest.ts'
import { type ErrorCode, EXIT } from '../../protocol/errors.ts'
import { decodeJoinToken, encodeJoinToken } from '../../protocol/join-token.ts'
import { freePort, Lab, MeshProcess } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { hasTool, runTool } from '../../tools/lab/run-tool.ts'
import { BLOCK, dirty, joinMachine, startMaster } from '../support/fixtures.ts'

const BLOCKS = 16
const isRoot = process.getuid?.() === 0
const hasFaketime = await hasTool('faketime')
if (!isRoot) console.warn('SKIPPED: mounts, loop devices and full disks need root')
if (!hasFaketime) console.warn('SKIPPED: wrong clocks need the Debian package faketime')

describe('bad input gets a clear error, its exit code, and changes nothing', () => {
  const random = new Random(11)
  let lab: Lab
  let image: Buffer
  let token: string

  beforeAll(async () => {
    lab = await Lab.open()
    image = await startMaster(lab, BLOCKS, random)
    token = await lab.invite('master', 100)
    await joinMachine(lab, 'm1', image, token)
    await lab.ok('m1', ['restore'])
  })
  afterAll(() => lab.close())

  /** Runs a command and checks code, exit code, message on both outputs, and that there is no stack trace. */
  async function fails(
    machine: string,
    args: readonly string[],
    code: ErrorCode,
    exit: number,
    message: RegExp,
    env: NodeJS.ProcessEnv = {},
  ): Promise<void> {
    const outcome = await lab.run(machine, args, env)
    const text = `${args.join(' ')}\n${outcome.stdout}\n${outcome.stderr}`
    expect(outcome.result, text).toMatchObject({ event: 'error', code })
    expect(outcome.code, text).toBe(exit)
    expect(outcome.stderr, text).toMatch(message)
    expect(outcome.stderr, text).not.toMatch(/\n\s+at /)
    expect(String(outcome.result?.advice).length, text).toBeGreaterThan(10)
  }

  /** A machine's state directory must not have come into being. */
  async function noState(machine: string): Promise<void> {
    expect(await readdir(lab.dir)).not.toContain(machine)
  }

  const joinArgs = (disk: string, name = 'new'): string[] => ['join', token, '--disk', disk, '--name', name]
  const sum = async (path: string): Promise<string> =>
    createHash('sha256')
      .update(await readFile(path))
      .digest('hex')

  it('disk missing, a directory, empty, no disk at all', async () => {
    await writeFile(lab.path('empty.img'), '')
    for (const args of [['seed'], ['join', token, '--name', 'new', '--disk']]) {
      const disk = (path: string): string[] => [...args, path]
      await fails('new', disk(lab.path('nowhere.img')), 'DISK_MISSING', EXIT.disk, /nowhere\.img/)
      await fails('new', disk(lab.dir), 'DISK_NOT_A_DISK', EXIT.disk, /directory/)
      await fails('new', disk(lab.path('empty.img')), 'DISK_EMPTY', EXIT.disk, /empty/)
      await fails('new', disk('/dev/null'), 'DISK_NOT_A_DISK', EXIT.disk, /no disk/)
      await noState('new')
    }
  })

  it('disk smaller than the image; larger: the rest is left alone and reported', async () => {
    await writeFile(lab.path('small.img'), Buffer.alloc(BLOCK, 5))
    await fails(
      'small',
      joinArgs(lab.path('small.img'), 'small'),
      'DISK_TOO_SMALL',
      EXIT.disk,
      /small\.img has 65536 bytes/,
    )
    expect((await readFile(lab.path('small.img'))).equals(Buffer.alloc(BLOCK, 5))).toBe(true)

    await writeFile(lab.path('large.img'), Buffer.alloc(image.byteLength + 1000, 7))
    await lab.ok('large', joinArgs(lab.path('large.img'), 'large'))
    expect(await lab.ok('large', ['restore'])).toMatchObject({ verified: true, beyondImage: 1000 })
    const disk = await readFile(lab.path('large.img'))
    expect(disk.subarray(0, image.byteLength).equals(image)).toBe(true)
    expect(disk.subarray(image.byteLength).equals(Buffer.alloc(1000, 7))).toBe(true)

    const file = await open(lab.path('large.img'), 'r+')
    await file.truncate(BLOCK)
    await file.close()
    await fails('large', ['restore'], 'DISK_TOO_SMALL', EXIT.disk, /large\.img/)
    await rm(lab.path('large.img'))
    await fails('large', ['restore'], 'DISK_MISSING', EXIT.disk, /large\.img/)
    await fails('large', ['verify'], 'DISK_MISSING', EXIT.disk, /large\.img/)
  })

  it.skipIf(!isRoot)('disk that is mounted read-write, directly or through a partition or loop device', async () => {
    const path = lab.path('mounted.img')
    const file = await open(path, 'w')
    await file.truncate(8 * 1024 * 1024)
    await file.close()
    await runTool('mke2fs', ['-q', '-t', 'ext4', '-F', path])
    const loop = (await runTool('losetup', ['--find', '--show', path])).trim()
    const point = lab.path('mnt')
    await mkdir(point)
    try {
      await runTool('mount', [loop, point])
      for (const disk of [path, loop]) {
        await fails(
          'mounted',
          ['seed', disk, '--once'],
          'DISK_MOUNTED',
          EXIT.disk,
          new RegExp(`mounted read-write on ${point}`),
        )
        await fails('mounted', joinArgs(disk), 'DISK_MOUNTED', EXIT.disk, /--force/)
      }
      await noState('mounted')
      expect(await lab.ok('mounted', ['seed', path, '--once', '--force'])).toMatchObject({ event: 'published' })
      await runTool('mount', ['-o', 'remount,ro', point])
      expect(await lab.ok('mounted', ['seed', path, '--once'])).toMatchObject({ event: 'published' })
    } finally {
      await runTool('umount', [point])
      await runTool('losetup', ['--detach', loop])
    }
  })

  it.skipIf(!isRoot)('disk and state directory that this user may not use', async () => {
    const { uid, gid } = { uid: 65534, gid: 65534 }
    await runTool('chmod', ['755', lab.dir])
    await writeFile(lab.path('secret.img'), image, { mode: 0o600 })
    await mkdir(lab.path('foreign'), { mode: 0o755 })
    const asNobody = async (args: string[]) => new MeshProcess(args, {}, { uid, gid }).exited
    const unreadable = await asNobody([
      'seed',
      lab.path('secret.img'),
      '--once',
      '--json',
      '--state',
      lab.path('foreign'),
    ])
    expect(unreadable).toMatchObject({ code: EXIT.disk, result: { code: 'DISK_UNREADABLE' } })
    await runTool('chmod', ['644', lab.path('secret.img')])
    for (const state of [lab.path('foreign'), lab.path('foreign', 'deeper'), lab.path('m1')]) {
      const unwritable = await asNobody(['seed', lab.path('secret.img'), '--once', '--json', '--state', state])
      expect(unwritable, state).toMatchObject({ code: EXIT.state, result: { code: 'STATE_UNWRITABLE' } })
    }
    expect(await readdir(lab.path('foreign'))).toEqual([])
  })

  it('state directory missing, of a newer format, damaged, a file, in use, of another site, of a machine', async () => {
    await fails('nothing', ['restore'], 'STATE_MISSING', EXIT.state, /mesh join/)
    await fails('nothing', ['up'], 'STATE_MISSING', EXIT.state, /nothing/)
    await fails('nothing', ['status'], 'STATE_MISSING', EXIT.state, /nothing/)
    await fails('nothing', ['invite'], 'STATE_NOT_RUNNING', EXIT.state, /no mesh command is running/)
    await noState('nothing')

    await mkdir(lab.path('newer'))
    await writeFile(lab.path('newer', 'format'), 'lab-mesh-state 9\n')
    await fails('newer', ['restore'], 'FORMAT_NEWER', EXIT.newer, /format 9/)
    await fails('newer', ['seed', lab.path('m1.img')], 'FORMAT_NEWER', EXIT.newer, /format 9/)
    expect(await readdir(lab.path('newer'))).toEqual(['format'])
    await writeFile(lab.path('newer', 'format'), 'something else')
    await fails('newer', ['restore'], 'STATE_CORRUPT', EXIT.state, /format/)

    await writeFile(lab.path('file'), '')
    await fails('file', ['seed', lab.path('m1.img'), '--once'], 'STATE_UNWRITABLE', EXIT.state, /not a directory/)

    await fails('master', ['up'], 'STATE_IN_USE', EXIT.state, /in use by mesh seed \(pid \d+\)/)
    await fails('master', ['restore'], 'STATE_IN_USE', EXIT.state, /mesh seed/)
    await fails('m1', ['seed', lab.path('m1.img')], 'STATE_NOT_MASTER', EXIT.state, /lab machine/)

    const other = new Random(12)
    await writeFile(lab.path('other.img'), other.bytes(BLOCK))
    await lab.serve('other', ['seed', lab.path('other.img'), '--site', 'elsewhere'])
    const foreign = await lab.invite('other')
    await fails(
      'm1',
      ['join', foreign, '--disk', lab.path('m1.img')],
      'STATE_OTHER_SITE',
      EXIT.state,
      /belongs to site lab/,
    )
    // A join that was cut short has left trusted metadata, and no machine.
    await mkdir(lab.path('cut'))
    for (const part of ['format', 'trust']) await cp(lab.path('m1', part), lab.path('cut', part), { recursive: true })
    const [ours, theirs] = [token, foreign].map((text) => toHex(decodeJoinToken(text).siteId).slice(0, 8))
    await fails(
      'cut',
      ['join', foreign, '--disk', lab.path('m1.img'), '--name', 'cut'],
      'STATE_OTHER_SITE',
      EXIT.state,
      new RegExp(`trusts site ${ours}, the token is of site ${theirs}`),
    )
    const up = await lab.serve('m1', ['up'])
    await fails('m1', ['invite'], 'STATE_NOT_MASTER', EXIT.state, /not the master/)
    await up.stop()
    await lab.stop('other')
  })

  it('token truncated, mistyped, expired, used up, unknown, of another site; name taken', async () => {
    const disk = lab.path('m1.img')
    const join1 = (text: string, name = 'new'): string[] => ['join', text, '--disk', disk, '--name', name]
    await fails('new', join1(token.slice(0, -3)), 'TOKEN_INVALID', EXIT.trust, /truncated/)
    await fails('new', join1('hello'), 'TOKEN_INVALID', EXIT.trust, /mesh-/)
    await noState('new')
    await fails('new', join1(token, 'm1'), 'NAME_TAKEN', EXIT.trust, /named m1 is already a member/)
    await fails('new', join1(token, 'M1'), 'NAME_TAKEN', EXIT.trust, /named m1 is already a member/)
    await fails('new', join1(token, 'a b'), 'USAGE', EXIT.usage, /no machine name/)

    const decoded = decodeJoinToken(token)
    const elsewhere = encodeJoinToken({ ...decoded, siteId: Buffer.alloc(32, 3) })
    await fails('new', join1(elsewhere), 'TOKEN_OTHER_SITE', EXIT.trust, /this master serves site lab/)
    const guessed = encodeJoinToken({ ...decoded, secret: Buffer.alloc(16, 3) })
    await fails('new', join1(guessed), 'TOKEN_UNKNOWN', EXIT.trust, /no such invitation/)

    const once = await lab.invite('master', 1)
    await lab.ok('first', ['join', once, '--disk', disk, '--name', 'first'])
    await fails('second', join1(once, 'second'), 'TOKEN_USED_UP', EXIT.trust, /1 machines/)
    // The one that used it may repeat its join.
    await lab.ok('first', ['join', once, '--disk', disk, '--name', 'first'])

    const brief = String((await lab.ok('master', ['invite', '--ttl', '1s'])).token)
    await new Promise((resolve) => setTimeout(resolve, 1100))
    await fails('second', join1(brief, 'second'), 'TOKEN_EXPIRED', EXIT.trust, /expired/)
  })

  it('block size, image name, preserved range, options', async () => {
    const disk = lab.path('m1.img')
    for (const size of ['65537', '2048', '2M']) {
      await fails('odd', ['seed', disk, '--block-size', size], 'BLOCK_SIZE_INVALID', EXIT.usage, /power of two/)
    }
    await fails('odd', ['seed', disk, '--image', 'My Image'], 'USAGE', EXIT.usage, /no image name/)
    for (const range of ['100:65536', '0:100', '0:0', `${BLOCK * BLOCKS}:65536`]) {
      await fails('odd', ['seed', disk, '--preserve', range], 'RANGE_INVALID', EXIT.usage, /whole 65536-byte blocks/)
    }
    await fails('odd', ['seed', disk, '--preserve', 'x'], 'USAGE', EXIT.usage, /OFFSET:LENGTH/)
    await fails('odd', ['seed', disk, '--block-size', 'x'], 'USAGE', EXIT.usage, /size such as/)
    await fails('odd', ['seed'], 'USAGE', EXIT.usage, /missing required argument/)
    await fails('odd', ['restore', '--nonsense'], 'USAGE', EXIT.usage, /unknown option/)
    await fails('odd', ['restoer'], 'USAGE', EXIT.usage, /Did you mean restore/)
    await fails('master', ['invite', '--ttl', 'soon'], 'USAGE', EXIT.usage, /time such as/)
    await noState('odd')
  })

  it('unknown image and release', async () => {
    await fails(
      'm1',
      ['restore', '--image', 'vista'],
      'IMAGE_UNKNOWN',
      EXIT.trust,
      /no image vista; it publishes model/,
    )
    await fails('m1', ['restore', '--release', '7'], 'IMAGE_UNKNOWN', EXIT.trust, /no release 7/)
    await fails(
      'fresh',
      [...joinArgs(lab.path('m1.img'), 'fresh'), '--image', 'vista'],
      'IMAGE_UNKNOWN',
      EXIT.trust,
      /publishes model/,
    )
  })

  it('port taken, address that is none', async () => {
    const port = await freePort()
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
    const up = new MeshProcess([
      'up',
      '--json',
      '--no-mdns',
      '--state',
      lab.path('m1'),
      '--listen',
      `/ip4/127.0.0.1/tcp/${port}`,
    ])
    expect(await up.exited).toMatchObject({ code: EXIT.network, result: { code: 'PORT_TAKEN' } })
    server.close()
    for (const [address, code] of [
      ['127.0.0.1:80', 'USAGE'],
      ['/ip4/999.0.0.1/tcp/80', 'ADDRESS_INVALID'],
    ] as const) {
      const wrong = new MeshProcess(['up', '--json', '--state', lab.path('m1'), '--listen', address])
      expect(await wrong.exited, address).toMatchObject({ code: EXIT.usage, result: { code } })
    }
  })

  it('blocks that nobody holds are named; what could be restored is; nobody reachable', async () => {
    const master = lab.path('model.img')
    await dirty(lab.path('m1.img'), [2, 9, 12], random)
    await dirty(master, [9, 12], random)
    await fails('m1', ['restore', '--wait', '2s'], 'BLOCKS_UNAVAILABLE', EXIT.unavailable, /holds blocks 9, 12/)
    const disk = await readFile(lab.path('m1.img'))
    expect(disk.subarray(2 * BLOCK, 3 * BLOCK).equals(image.subarray(2 * BLOCK, 3 * BLOCK))).toBe(true)
    const status = await lab.ok('master', ['status'])
    expect(status.blocks).toMatchObject({ changed: 2, unheld: 2 })

    await lab.stop('master')
    const before = await sum(lab.path('m1.img'))
    await fails('m1', ['restore', '--wait', '1s'], 'PEERS_UNREACHABLE', EXIT.network, /no machine of the site/)
    await fails('late', joinArgs(lab.path('m1.img'), 'late'), 'PEERS_UNREACHABLE', EXIT.network, /cannot be reached/)
    expect(await sum(lab.path('m1.img'))).toBe(before)
    // A disk that differs is reported by verify with its own exit code.
    expect(await lab.run('m1', ['verify'])).toMatchObject({
      code: EXIT.mismatch,
      result: { verified: false, blocks: { different: 2 } },
    })
    await writeFile(master, image)
    await lab.serve('master', ['seed', master])
    expect(await lab.ok('m1', ['restore'])).toMatchObject({ verified: true })
  })

  it.skipIf(!isRoot)('state directory on a full disk, wherever the space runs out', async () => {
    const point = lab.path('tiny')
    await mkdir(point)
    await writeFile(lab.path('big.img'), random.bytes(64 * BLOCK))
    const codes: string[] = []
    for (let size = 8; size <= 320; size += 24) {
      await runTool('mount', ['-t', 'tmpfs', '-o', `size=${size}k`, 'tmpfs', point])
      try {
        const outcome = await lab.run(join('tiny', 'state'), [
          'seed',
          lab.path('big.img'),
          '--once',
          '--block-size',
          '4096',
        ])
        const code = outcome.result?.event === 'error' ? String(outcome.result.code) : 'published'
        expect([`DISK_FULL ${EXIT.disk}`, 'published 0'], outcome.stderr).toContain(`${code} ${outcome.code}`)
        codes.push(code)
      } finally {
        await runTool('umount', [point])
      }
    }
    expect(codes.filter((code) => code === 'DISK_FULL').length).toBeGreaterThan(4)
    expect(codes.at(-1)).toBe('published')
  })

  it.skipIf(!hasFaketime)('clock wrong by years', async () => {
    const disk = lab.path('m1.img')
    const at = async (time: string, machine: string, args: string[]) => {
      return new MeshProcess(
        [...args, '--json', '--no-mdns', '--state', lab.path(machine)],
        {},
        { through: ['faketime', time] },
      ).exited
    }
    const join1 = [
      'join',
      token,
      '--disk',
      disk,
      '--name',
      'clock',
      '--listen',
      `/ip4/127.0.0.1/tcp/${await freePort()}`,
    ]
    expect(await at('2009-01-01', 'clock', join1)).toMatchObject({ code: EXIT.trust, result: { code: 'CLOCK_WRONG' } })
    await noState('clock')
    expect(await at('2045-01-01', 'clock', join1)).toMatchObject({
      code: EXIT.trust,
      result: { code: 'METADATA_EXPIRED' },
    })
    expect(await at('2009-01-01', 'clock2', ['seed', disk, '--once'])).toMatchObject({
      code: EXIT.trust,
      result: { code: 'CLOCK_WRONG' },
    })
    await noState('clock2')
    // A dead clock battery does not stop a restore to the release the machine trusts.
    await dirty(disk, [1], random)
    const port = ['--listen', `/ip4/127.0.0.1/tcp/${await freePort()}`]
    for (const time of ['2009-01-01', '2045-01-01']) {
      expect(await at(time, 'm1', ['restore', ...port])).toMatchObject({ code: EXIT.ok, result: { verified: true } })
      await dirty(disk, [1], random)
    }
  })
})
