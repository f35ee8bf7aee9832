import { createServer, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { NbdClient } from '../../../node/nbd/nbd-client.ts'
import { SocketReader } from '../../../node/nbd/socket-reader.ts'
import { codeOf } from '../../support/error-code.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** Hexadecimal, with spaces for readers. */
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
const GREETING = hex('4e42444d41474943 49484156454f5054 0003')
const reply = (option: string, type: string, data = ''): Buffer => {
  const length = (data.replaceAll(/\s/g, '').length / 2).toString(16).padStart(8, '0')
  return hex(`0003e889045565a9 ${option} ${type} ${length} ${data}`)
}
const STRUCTURED = '00000008'
const CONTEXT = '0000000a'
const GO = '00000007'
const ACK = '00000001'
const INFO = '00000003'
/** An export of 1 MiB that can flush. */
const EXPORT = reply(GO, INFO, '0000 0000000000100000 0005')
const X = '0000000a 783a79' // context 10 is x:y
const AGREED = [reply(STRUCTURED, ACK), Buffer.concat([reply(CONTEXT, '00000004', X), reply(CONTEXT, ACK)])]
const SERVED = [...AGREED, Buffer.concat([EXPORT, reply(GO, ACK)])]
const C1 = '0000000000000001'

/** A server that greets, answers each option in turn, then the first request by `answer`. */
async function serve(greeting: Buffer, options: readonly Buffer[], answer: Buffer): Promise<string> {
  const path = `${await temporaryDirectory()}/bad.sock`
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    void talk(socket, greeting, options, answer).catch(() => undefined)
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `nbd+unix:///?socket=${path}`
}

async function talk(socket: Socket, greeting: Buffer, options: readonly Buffer[], answer: Buffer): Promise<void> {
  const reader = new SocketReader(socket, 'the client')
  socket.write(greeting)
  await reader.read(4)
  for (const option of options) {
    await reader.read((await reader.read(16)).readUInt32BE(12))
    socket.write(option)
  }
  await reader.read(28)
  socket.write(answer)
}

const connect = (uri: string): Promise<NbdClient> =>
  NbdClient.connect(uri, { contexts: ['x:y'], connectMs: 2000, replyMs: 2000 })

describe('a server that speaks wrongly', () => {
  const big = '00000000'.repeat(30)
  it.each<[string, Buffer, Buffer[], string]>([
    ['greets with something else', Buffer.from('SSH-2.0-OpenSSH_9.2p1 Debian'), [], 'NBD_PROTOCOL'],
    ['is oldstyle', hex('4e42444d41474943 00420281861253 0000000000'), [], 'NBD_PROTOCOL'],
    ['is newstyle, not fixed', hex('4e42444d41474943 49484156454f5054 0000'), [], 'NBD_PROTOCOL'],
    ['answers without magic', GREETING, [hex(`1${'0'.repeat(39)}`)], 'NBD_PROTOCOL'],
    ['answers another option', GREETING, [reply(GO, ACK)], 'NBD_PROTOCOL'],
    ['answers too long', GREETING, [hex(`0003e889045565a9 ${STRUCTURED} ${ACK} 7fffffff`)], 'NBD_PROTOCOL'],
    ['has no end of answers', GREETING, [Buffer.concat(Array(300).fill(reply(STRUCTURED, INFO, big)))], 'NBD_PROTOCOL'],
    [
      'sets another context',
      GREETING,
      [AGREED[0]!, Buffer.concat([reply(CONTEXT, '00000004', '00000001 7a3a7a'), reply(CONTEXT, ACK)])],
      'NBD_PROTOCOL',
    ],
    [
      'sets a context twice',
      GREETING,
      [AGREED[0]!, Buffer.concat([AGREED[1]!.subarray(0, 27), AGREED[1]!])],
      'NBD_PROTOCOL',
    ],
    [
      'cuts a context',
      GREETING,
      [AGREED[0]!, Buffer.concat([reply(CONTEXT, '00000004', '0000'), reply(CONTEXT, ACK)])],
      'NBD_PROTOCOL',
    ],
    ['describes no export', GREETING, [...AGREED, reply(GO, ACK)], 'NBD_PROTOCOL'],
    ['describes half an export', GREETING, [...AGREED, reply(GO, INFO, '0000 0000')], 'NBD_PROTOCOL'],
    ['has an impossible size', GREETING, [...AGREED, reply(GO, INFO, '0000 ffffffffffffffff 0005')], 'NBD_PROTOCOL'],
    [
      'has impossible block sizes',
      GREETING,
      [...AGREED, Buffer.concat([EXPORT, reply(GO, INFO, '0003 00000003 00001000 00100000')])],
      'NBD_PROTOCOL',
    ],
    ['wants TLS', GREETING, [...AGREED, reply(GO, '80000005')], 'NBD_UNSUITABLE'],
    ['is shutting down', GREETING, [...AGREED, reply(GO, '80000007', '627965')], 'NBD_UNSUITABLE'],
    ['says nothing', Buffer.alloc(0), [], 'REQUEST_TIMEOUT'],
  ])('in the handshake: %s', async (_, greeting, options, code) => {
    // What is told of an export comes before the acknowledgement.
    const last = options[2]
    const complete = last === undefined ? options : [...options.slice(0, 2), Buffer.concat([last, reply(GO, ACK)])]
    const uri = await serve(greeting, complete, Buffer.alloc(0))
    expect(await codeOf(NbdClient.connect(uri, { contexts: ['x:y'], connectMs: 300 }))).toBe(code)
  })

  const chunk = (flags: string, type: string, data: string, cookie = C1): string =>
    `668e33ef ${flags} ${type} ${cookie} ${(data.replaceAll(' ', '').length / 2).toString(16).padStart(8, '0')} ${data}`
  const DONE = '0001'
  const MORE = '0000'
  const AT = '0000000000001000' // where the read of 8 bytes is
  it.each<[string, string]>([
    ['without magic', `11111111 00000000 ${C1}`],
    ['to another request', `67446698 00000000 0000000000000007`],
    ['simply', `67446698 00000000 ${C1} 0102030405060708`],
    ['by an unknown kind', chunk(DONE, '0063', '00')],
    ['by an end with content', chunk(DONE, '0000', '00')],
    ['by nothing', chunk(DONE, '0000', '')],
    ['too little', chunk(DONE, '0001', `${AT} 01020304`)],
    ['too much', chunk(DONE, '0001', `${AT} 010203040506070809`)],
    ['from before', chunk(DONE, '0001', '0000000000000fff 0102030405060708')],
    ['from far away', chunk(DONE, '0001', 'ffffffffffffffff 0102030405060708')],
    ['twice the same', chunk(MORE, '0001', `${AT} 01020304`) + chunk(DONE, '0001', `${AT} 01020304`)],
    ['twice, a hole', chunk(MORE, '0002', `${AT} 00000004`) + chunk(DONE, '0002', `${AT} 00000004`)],
    ['a hole of no length', chunk(MORE, '0002', `${AT} 00000000`)],
    ['a hole that is too long', chunk(DONE, '0002', `${AT} 00000009`)],
    ['block status', chunk(DONE, '0005', '0000000a 00000008 00000000')],
    ['an error of no kind', chunk(DONE, '8001', '00000000 0000')],
    ['half an error', chunk(DONE, '8001', '00000005')],
    ['an error with a cut text', chunk(DONE, '8001', '00000005 0009 61')],
    ['a second time', chunk(DONE, '0002', `${AT} 00000008`) + chunk(DONE, '0002', `${AT} 00000008`)],
  ])('answers a read %s', async (_, answer) => {
    const client = await connect(await serve(GREETING, SERVED, hex(answer)))
    // A second request shows what comes after a good answer.
    const both = await Promise.all([codeOf(client.read(4096, Buffer.alloc(8))), codeOf(client.flush())])
    expect(both).toContain('NBD_PROTOCOL')
    await client.close()
  })

  it('does not keep one that says goodbye', async () => {
    const client = await connect(await serve(GREETING, SERVED, Buffer.alloc(0)))
    // More than the socket takes while nobody reads.
    const writes = Array.from({ length: 20 }, () => codeOf(client.write(0, Buffer.alloc(1024 ** 2))))
    await client.close()
    expect(new Set(await Promise.all(writes))).toEqual(new Set(['NBD_UNREACHABLE']))
  })

  it('takes a read in pieces of any order', async () => {
    const pieces =
      chunk(MORE, '0001', '0000000000001004 05060708') +
      chunk(MORE, '0002', '0000000000001002 00000002') +
      chunk(MORE, '0001', `${AT} 0102`) +
      chunk(DONE, '0000', '')
    const client = await connect(await serve(GREETING, SERVED, hex(pieces)))
    const into = Buffer.alloc(8, 0xff)
    await client.read(4096, into)
    expect(into).toEqual(hex('0102000005060708'))
    await client.close()
  })

  it.each<[string, string, string]>([
    ['of another context', chunk(DONE, '0005', '0000000b 00100000 00000000'), 'NBD_PROTOCOL'],
    ['of no length', chunk(DONE, '0005', '0000000a 00000000 00000000'), 'NBD_PROTOCOL'],
    ['without an extent', chunk(DONE, '0005', '0000000a'), 'NBD_PROTOCOL'],
    ['of half an extent', chunk(DONE, '0005', '0000000a 00100000'), 'NBD_PROTOCOL'],
    ['beyond the end', chunk(DONE, '0005', '0000000a 00100000 00000000 00000001 00000001'), 'NBD_PROTOCOL'],
    [
      'twice',
      chunk(MORE, '0005', '0000000a 00000200 00000000') + chunk(DONE, '0005', '0000000a 00000200 00000000'),
      'NBD_PROTOCOL',
    ],
    ['never', chunk(DONE, '0000', ''), 'NBD_PROTOCOL'],
    ['as an error', chunk(DONE, '8002', '00000016 0003 627965 0000000000000000'), 'DISK_IO'],
    [
      'with a last extent that reaches further',
      chunk(DONE, '0005', '0000000a 00000200 00000001 7fffffff 00000000'),
      'OK',
    ],
  ])('tells a block status %s', async (_, answer, code) => {
    const client = await connect(await serve(GREETING, SERVED, hex(answer)))
    const told = codeOf(async () => {
      for await (const extent of client.blockStatus('x:y', 0, client.size)) expect(extent.length).toBeGreaterThan(0)
    })
    expect(await told).toBe(code)
    await client.close()
  })
})
