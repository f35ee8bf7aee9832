import { once } from 'node:events'
import { mkdir, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { callControl } from '../../../node/control/control-client.ts'
import { type ControlMethod, ControlServer } from '../../../node/control/control-server.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { natural, nullable, text } from '../../../protocol/json-shape.ts'
import { codeOf } from '../../support/error-code.ts'
import { useTempDir } from '../../support/temp-dir.ts'

describe('the control socket', () => {
  const dir = useTempDir()
  let server: ControlServer | undefined
  afterEach(async () => {
    await server?.close()
    server = undefined
  })

  /** What the method `wait` waits for. */
  let gate = Promise.withResolvers<number>()
  let waiting = 0

  /** Callers that send this and take nothing. Those that are disconnected are counted. */
  async function rudeCallers(count: number, text: string): Promise<{ gone: () => number; close: () => void }> {
    const sockets = Array.from({ length: count }, () => connect(dir('control.sock')))
    let gone = 0
    for (const socket of sockets) {
      socket.on('error', () => undefined).on('close', () => gone++)
      socket.write(text)
    }
    await Promise.all(sockets.map((socket) => socket.connecting && once(socket, 'connect')))
    return { gone: () => gone, close: () => sockets.map((socket) => socket.destroy()) }
  }

  async function listen(path = dir()): Promise<void> {
    const methods = new Map<string, ControlMethod>([
      ['double', async ({ n }) => Number(n) * 2],
      ['nothing', async () => undefined],
      ['much', async () => 'x'.repeat(3 * 1024 ** 2)],
      [
        'wait',
        () => {
          waiting++
          return gate.promise
        },
      ],
      [
        'refuse',
        async () => {
          throw new MeshError('TOKEN_EXPIRED', 'too late')
        },
      ],
    ])
    server = await ControlServer.listen(path, async (name) => methods.get(name))
  }

  it('answers many callers at once, and passes errors on with their code', async () => {
    await listen()
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, n) => callControl(dir(), 'double', natural(), { n })),
    )
    expect(answers).toEqual(Array.from({ length: 50 }, (_, n) => 2 * n))
    expect(await callControl(dir(), 'nothing', nullable(natural()))).toBeNull()
    expect(await codeOf(callControl(dir(), 'refuse', natural()))).toBe('TOKEN_EXPIRED')
    for (const method of ['missing', 'constructor', 'toString'])
      expect(await codeOf(callControl(dir(), method, natural()))).toBe('USAGE')
  })

  it('drops the callers that it waits for, when there are more than 64, and answers a new one', async () => {
    await listen()
    const rude = await rudeCallers(200, `{"method":"${'x'.repeat(100_000)}`)
    await expect.poll(rude.gone).toBe(136)
    expect(await callControl(dir(), 'double', natural(), { n: 4 })).toBe(8)
    rude.close()
  })

  it('keeps at most 16 MiB of what callers have sent in part', async () => {
    await listen()
    const rude = await rudeCallers(10, 'x'.repeat(3 * 1024 ** 2))
    await expect.poll(rude.gone).toBe(5)
    expect(await callControl(dir(), 'double', natural(), { n: 4 })).toBe(8)
    rude.close()
  })

  it('keeps at most 16 MiB of answers that are not taken', async () => {
    await listen()
    const rude = await rudeCallers(20, '{"method":"much"}\n')
    expect(await callControl(dir(), 'much', text(4 * 1024 ** 2))).toHaveLength(3 * 1024 ** 2)
    rude.close()
  })

  it('tells a new caller to come back when it is at work for 64', async () => {
    gate = Promise.withResolvers()
    await listen()
    const working = Array.from({ length: 64 }, () => callControl(dir(), 'wait', natural()))
    await expect.poll(() => waiting).toBe(64)
    expect(await codeOf(callControl(dir(), 'double', natural(), { n: 1 }))).toBe('STATE_BUSY')
    gate.resolve(5)
    expect(await Promise.all(working)).toEqual(Array(64).fill(5))
    expect(await callControl(dir(), 'double', natural(), { n: 1 })).toBe(2)
  })

  it('gives up a request that comes byte by byte for too long', { timeout: 60_000 }, async () => {
    await listen()
    const socket = connect(dir('control.sock'))
    const beat = setInterval(() => socket.write(' '), 1_000)
    await new Promise((resolve) => socket.on('error', () => undefined).on('close', resolve))
    clearInterval(beat)
  })

  it('can be opened by its owner only', async () => {
    await listen()
    expect((await stat(dir('control.sock'))).mode & 0o777).toBe(0o600)
  })

  it('survives garbage and callers that go away', async () => {
    await listen()
    for (const text of ['garbage\n', '{"method":\n', 'null\n', '[]\n', 'half a line', '\n']) {
      await new Promise<void>((resolve) => {
        const socket = connect(dir('control.sock'), () => {
          socket.write(text)
          setTimeout(() => socket.destroy(), 30)
        })
        socket.on('close', () => resolve())
        socket.on('error', () => socket.destroy())
      })
    }
    expect(await callControl(dir(), 'double', natural(), { n: 4 })).toBe(8)
  })

  it('says when nobody listens, and takes the place of a dead socket', async () => {
    expect(await codeOf(callControl(dir('nowhere'), 'double', natural()))).toBe('STATE_NOT_RUNNING')
    await mkdir(dir('dead'), { recursive: true })
    await writeFile(dir('dead', 'control.sock'), '')
    expect(await codeOf(callControl(dir('dead'), 'double', natural()))).toBe('STATE_NOT_RUNNING')
    await listen(dir('dead'))
    expect(await callControl(dir('dead'), 'double', natural(), { n: 1 })).toBe(2)
  })

  it('works in a directory whose path is longer than a socket address', async () => {
    const deep = join(dir(), ...Array(8).fill('a-folder-with-a-long-name'))
    await mkdir(deep, { recursive: true })
    await listen(deep)
    expect(await callControl(deep, 'double', natural(), { n: 21 })).toBe(42)
  })
})
