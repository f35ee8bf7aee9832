import { once } from 'node:events'
import { open, readdir, readlink } from 'node:fs/promises'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MeshError } from '../../../../protocol/errors.ts'
import { FileServer } from '../../../../tools/boot/serve/file-server.ts'
import { MAX_CONNECTIONS_PER_ADDRESS } from '../../../../tools/boot/serve/limits.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { makeAgentFolder } from '../../../support/agent-folder.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: Buffer
}

describe('the web server of the agent', () => {
  let dir: string
  let contents: Map<string, Buffer>
  let server: FileServer
  let fault: MeshError | undefined
  let fetches: string[]
  let faults: string[]

  beforeEach(async () => {
    dir = await temporaryDirectory()
    const sizes = { 'boot.ipxe': 0, vmlinuz: 10, 'agent.img': 8_000_000, 'agent.efi': 1000 }
    contents = await makeAgentFolder(dir, new Random(5), { siteId: 'b'.repeat(64), sizes })
    fault = undefined
    fetches = []
    faults = []
    server = await FileServer.listen({
      ...{ address: '127.0.0.1', port: 0 },
      open: async (name) => {
        if (fault !== undefined) throw fault
        return { handle: await open(join(dir, name)), size: contents.get(name)!.byteLength, sha256: 'abc' }
      },
      onFetch: ({ name, isWhole }) => void fetches.push(`${name}${isWhole ? ' whole' : ''}`),
      onFault: ({ message }) => void faults.push(message),
    })
  })
  afterEach(() => server.close())

  async function ask(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
    const asking = request({ host: '127.0.0.1', port: server.port, path, headers, method, agent: false }).end()
    const [response] = (await once(asking, 'response')) as [import('node:http').IncomingMessage]
    const parts: Buffer[] = []
    for await (const part of response) parts.push(part as Buffer)
    return { status: response.statusCode!, headers: response.headers, body: Buffer.concat(parts) }
  }

  /** Files of the folder that are open in this process. */
  async function opened(): Promise<string[]> {
    const found = await Promise.all(
      (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
    )
    return found.filter((path) => path.startsWith(dir))
  }

  it.each([
    [undefined, 206, 'bytes=0-9', 0, 10],
    [undefined, 206, 'bytes=990-', 990, 1000],
    [undefined, 206, 'bytes=-10', 990, 1000],
    [undefined, 206, 'bytes=-5000', 0, 1000],
    [undefined, 206, 'bytes=990-5000', 990, 1000],
    ['"abc"', 206, 'bytes=0-0', 0, 1],
    ['"of before"', 200, 'bytes=0-0', 0, 1000],
    [undefined, 200, 'bytes=5-2', 0, 1000],
    [undefined, 200, 'bytes=0-1,5-6', 0, 1000],
    [undefined, 200, 'lines=1-2', 0, 1000],
    [undefined, 416, 'bytes=1000-', 0, 0],
    [undefined, 416, 'bytes=-0', 0, 0],
  ] as const)('If-Range %s: %s for %s', async (only, status, range, start, end) => {
    const answer = await ask('/agent.efi', { Range: range, ...(only === undefined ? {} : { 'If-Range': only }) })
    expect(answer.status).toBe(status)
    expect(answer.body.equals(contents.get('agent.efi')!.subarray(start, end))).toBe(true)
    if (status === 206) expect(answer.headers['content-range']).toBe(`bytes ${start}-${end - 1}/1000`)
  })

  it('has names, not paths, an empty file, and heads', async () => {
    for (const path of [
      '/',
      '/agent.efi/',
      '/./x/../agent.json',
      '/%2e%2e%2fagent.json',
      '/agent.efi%00',
      '/%',
      '/AGENT.EFI',
    ])
      expect((await ask(path)).status, path).toBe(404)
    expect((await ask('/x/../agent.efi?x=1')).status).toBe(200)
    expect(await ask('/boot.ipxe')).toMatchObject({ status: 200, body: Buffer.alloc(0) })
    const head = await ask('/agent.efi', {}, 'HEAD')
    expect(head).toMatchObject({
      status: 200,
      headers: { 'content-length': '1000', 'content-type': 'application/efi' },
    })
    expect((await ask('/agent.efi', {}, 'PUT')).headers.allow).toBe('GET, HEAD')
    expect(fetches).toEqual(['agent.efi', 'agent.efi whole'])
    fault = new MeshError('BOOT_AGENT_UNFIT', 'it is being made anew')
    for (let i = 0; i < 3; i++) expect((await ask('/vmlinuz')).status).toBe(503)
    expect(faults).toEqual(['it is being made anew'])
  })

  it('lets one address have few connections, and closes the files of those who go away', async () => {
    const sockets: Socket[] = []
    let refused = 0
    for (let i = 0; i < MAX_CONNECTIONS_PER_ADDRESS + 4; i++) {
      const socket = connect(server.port, '127.0.0.1')
      socket.on('error', () => undefined).on('close', () => refused++)
      sockets.push(socket)
      await once(socket, 'connect')
    }
    while (refused < 4) await new Promise((resolve) => setImmediate(resolve))
    expect(refused).toBe(4)
    for (const socket of sockets) socket.write('GET /agent.img HTTP/1.1\r\nHost: x\r\n\r\n')
    // Nobody reads: what is sent fits into the buffers of the kernel, and the rest waits.
    while ((await opened()).length < MAX_CONNECTIONS_PER_ADDRESS) await new Promise((resolve) => setImmediate(resolve))
    for (const socket of sockets) socket.destroy()
    while ((await opened()).length > 0) await new Promise((resolve) => setImmediate(resolve))
    expect(fetches).not.toContain('agent.img whole')
    expect((await ask('/vmlinuz')).status).toBe(200)
  })
})
