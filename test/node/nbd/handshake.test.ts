import { describe, expect, it } from 'vitest'
import { INFO, OPTION, REPLY, TRANSMIT } from '../../../node/nbd/nbd-protocol.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { NBD_DISK_BYTES, serveLoggedDisk } from '../../support/nbd-fixture.ts'
import { contextQuery, goData, optionBytes, RawNbd, text, u16, u32 } from '../../support/raw-nbd.ts'

const { hasFlags, sendFlush, sendFua, sendTrim, sendWriteZeroes, sendDf, canMultiConn, sendCache, readOnly } = TRANSMIT
const VIOLATION: ErrorCode = 'NBD_PROTOCOL'
const ALWAYS = hasFlags | sendFlush | canMultiConn | sendCache
const WRITABLE = ALWAYS | sendFua | sendTrim | sendWriteZeroes

async function greeted(path: string): Promise<RawNbd> {
  const client = await RawNbd.connect(path)
  await client.greet()
  return client
}

/** The export's facts as they follow its size in EXPORT_NAME and INFO_EXPORT. */
function facts(size: number, flags: number): Buffer {
  const bytes = Buffer.alloc(10)
  bytes.writeBigUInt64BE(BigInt(size), 0)
  bytes.writeUInt16BE(flags, 8)
  return bytes
}

describe('NBD handshake', () => {
  it('greets with the fixed newstyle protocol', async () => {
    const { path } = await serveLoggedDisk()
    const client = await RawNbd.connect(path)
    expect((await client.greet()).toString('latin1')).toBe('NBDMAGICIHAVEOPT\x00\x03')
  })

  it.each([
    ['134 bytes, padded with zeros', 1, 134],
    ['10 bytes if both sides leave the padding out', 3, 10],
  ])('answers EXPORT_NAME with %s', async (_, flags, length) => {
    const { path } = await serveLoggedDisk()
    const client = await RawNbd.connect(path)
    await client.greet(flags)
    client.send(optionBytes(OPTION.exportName, Buffer.from('disk')))
    const expected = Buffer.alloc(length)
    facts(NBD_DISK_BYTES, WRITABLE).copy(expected)
    expect(await client.read(length)).toEqual(expected)
    // The transmission phase follows at once.
    expect(await client.ask({ command: 3, cookie: 5 })).toEqual({ error: 0, cookie: 5 })
  })

  it.each([
    ['GO', OPTION.go],
    ['INFO', OPTION.info],
  ])('answers %s with facts, name, description and sizes', async (_, option) => {
    const { path } = await serveLoggedDisk()
    const client = await greeted(path)
    const replies = await client.option(option, goData('disk', INFO.name, INFO.description, INFO.blockSize, 77))
    expect(replies.map(({ type }) => type)).toEqual([REPLY.info, REPLY.info, REPLY.info, REPLY.info, REPLY.ack])
    expect(replies.map(({ data }) => data).slice(0, 4)).toEqual([
      Buffer.concat([u16(INFO.export), facts(NBD_DISK_BYTES, WRITABLE)]),
      Buffer.concat([u16(INFO.name), Buffer.from('disk')]),
      Buffer.concat([u16(INFO.description), Buffer.from('fake-disk, writes logged by lab-mesh')]),
      Buffer.concat([u16(INFO.blockSize), u32(1), u32(4096), u32(32 * 1024 ** 2)]),
    ])
    if (option === OPTION.info) await client.option(OPTION.go, goData(''))
    expect(await client.ask({ command: 3, cookie: 5 })).toEqual({ error: 0, cookie: 5 })
  })

  it.each([
    ['a writable disk', false, false, WRITABLE],
    ['a writable disk with structured replies', false, true, WRITABLE | sendDf],
    ['a read-only disk with structured replies', true, true, ALWAYS | sendDf | readOnly],
  ])('tells what %s can do', async (_, isReadOnly, structured, flags) => {
    const { path } = await serveLoggedDisk({ readOnly: isReadOnly })
    const client = await greeted(path)
    if (structured) await client.option(OPTION.structuredReply)
    const [info] = await client.option(OPTION.go, goData(''))
    expect(info?.data.readUInt16BE(10)).toBe(flags)
  })

  it('lists its export, and acknowledges an abort', async () => {
    const { path, faults } = await serveLoggedDisk()
    const client = await greeted(path)
    const [server, end] = await client.option(OPTION.list)
    const described = Buffer.concat([text('disk'), Buffer.from('fake-disk, writes logged by lab-mesh')])
    expect([server?.type, server?.data, end?.type]).toEqual([REPLY.server, described, REPLY.ack])
    expect(await client.option(OPTION.abort, Buffer.from('some data'))).toMatchObject([{ type: REPLY.ack }])
    await client.disconnected()
    expect(faults).toEqual([])
  })

  const all = ['base:allocation', 'lab-mesh:dirty']
  it.each([
    ['LIST of everything', OPTION.listMetaContext, [], all],
    ['LIST of a namespace', OPTION.listMetaContext, ['base:'], ['base:allocation']],
    ['LIST of our own', OPTION.listMetaContext, ['lab-mesh:', 'x-foo:bar', 'nonsense'], ['lab-mesh:dirty']],
    ['SET of nothing', OPTION.setMetaContext, [], []],
    ['SET of a namespace', OPTION.setMetaContext, ['base:'], []],
    ['SET of one', OPTION.setMetaContext, ['lab-mesh:dirty', 'base:unknown'], ['lab-mesh:dirty']],
    ['SET of both', OPTION.setMetaContext, [...all, ...all], all],
  ])('%s_META_CONTEXT names what it selects', async (_, option, queries, names) => {
    const { path } = await serveLoggedDisk()
    const client = await greeted(path)
    await client.option(OPTION.structuredReply)
    const replies = await client.option(option, contextQuery('disk', ...queries))
    const setting = option === OPTION.setMetaContext
    expect(replies.map(({ type }) => type)).toEqual([...names.map(() => REPLY.metaContext), REPLY.ack])
    expect(replies.slice(0, -1).map(({ data }) => [data.readUInt32BE(0), data.subarray(4).toString()])).toEqual(
      names.map((name, i) => [setting ? i + 1 : 0, name]),
    )
  })

  const long = 'x'.repeat(4097)
  it.each([
    ['STARTTLS', OPTION.startTls, '', REPLY.errUnsupported],
    ['EXTENDED_HEADERS', OPTION.extendedHeaders, '', REPLY.errUnsupported],
    ['PEEK_EXPORT', 4, '', REPLY.errUnsupported],
    ['an unknown option', 4711, 'data', REPLY.errUnsupported],
    ['LIST with data', OPTION.list, 'data', REPLY.errInvalid],
    ['STRUCTURED_REPLY with data', OPTION.structuredReply, 'data', REPLY.errInvalid],
    ['GO for an unknown export', OPTION.go, goData('other'), REPLY.errUnknown],
    ['INFO for an unknown export', OPTION.info, goData('other'), REPLY.errUnknown],
    ['GO without data', OPTION.go, '', REPLY.errInvalid],
    ['GO with a name longer than the data', OPTION.go, Buffer.concat([u32(99), Buffer.from('disk')]), REPLY.errInvalid],
    ['GO with fewer requests than it says', OPTION.go, Buffer.concat([text('disk'), u16(9), u16(1)]), REPLY.errInvalid],
    ['GO with data left over', OPTION.go, Buffer.concat([goData('disk'), u16(1)]), REPLY.errInvalid],
    ['GO with a name that is too long', OPTION.go, goData(long), REPLY.errInvalid],
    ['SET_META_CONTEXT before structured replies', OPTION.setMetaContext, contextQuery('disk'), REPLY.errInvalid],
    ['LIST_META_CONTEXT before structured replies', OPTION.listMetaContext, contextQuery('disk'), REPLY.errInvalid],
  ])('refuses %s and goes on', async (_, option, data, error) => {
    const { path, faults } = await serveLoggedDisk()
    const client = await greeted(path)
    expect(await client.option(option, Buffer.from(data))).toMatchObject([{ option, type: error }])
    expect((await client.option(OPTION.go, goData('disk'))).at(-1)?.type).toBe(REPLY.ack)
    expect(faults).toEqual([])
  })

  it.each([
    ['an unknown export', contextQuery('other', 'base:allocation'), REPLY.errUnknown],
    ['a query longer than the data', Buffer.concat([text(''), u32(1), u32(99)]), REPLY.errInvalid],
    ['more queries than it says', Buffer.concat([text(''), u32(0), text('base:')]), REPLY.errInvalid],
  ])('SET_META_CONTEXT with %s fails and unselects', async (_, data, error) => {
    const { path } = await serveLoggedDisk()
    const client = await greeted(path)
    await client.option(OPTION.structuredReply)
    await client.option(OPTION.setMetaContext, contextQuery('disk', 'base:allocation'))
    expect(await client.option(OPTION.setMetaContext, data)).toMatchObject([{ type: error }])
    await client.option(OPTION.go, goData('disk'))
    expect(await client.ask({ command: 7, length: 512 })).toMatchObject({ error: 22 })
  })

  it.each([
    ['an unknown client flag', [u32(7)]],
    ['no option magic', [u32(3), Buffer.alloc(16, 1)]],
    ['an unknown name in EXPORT_NAME', [u32(3), optionBytes(OPTION.exportName, Buffer.from('other'))]],
    ['an option of 1 MiB', [u32(3), optionBytes(OPTION.list, Buffer.alloc(0), 1024 ** 2)]],
    ['options without end', [u32(3), ...Array.from({ length: 300 }, () => optionBytes(OPTION.list, Buffer.alloc(0)))]],
  ])('disconnects a client that sends %s, and serves the others', async (_, bytes) => {
    const { path, faults } = await serveLoggedDisk()
    const other = await RawNbd.ready(path)
    const client = await RawNbd.connect(path)
    client.send(...bytes)
    await client.disconnected()
    expect(faults).toEqual([`client 2: ${VIOLATION}`])
    expect(await other.ask({ command: 3, cookie: 1 })).toMatchObject({ error: 0 })
  })

  it('takes an option that comes byte by byte, with requests right behind it', async () => {
    const { path } = await serveLoggedDisk()
    const client = await RawNbd.connect(path)
    for (const byte of Buffer.concat([u32(3), optionBytes(OPTION.go, goData('disk'))])) client.send(Buffer.of(byte))
    client.socket.end(Buffer.from('256095130000000300000000000000070000000000000000000000000', 'hex'))
    await client.read(18 + 20 + 12 + 20 + 14 + 20)
    expect(await client.reply()).toEqual({ error: 0, cookie: 7 })
    await client.disconnected()
  })

  it.each([
    ['leaves before it says anything', 0, []],
    ['leaves between two options', 23, []],
    ['leaves in the middle of an option', 30, [`client 1: ${VIOLATION}`]],
  ])('a client that %s is no trouble', async (_, bytes, expected) => {
    const { path, faults, server } = await serveLoggedDisk()
    const client = await RawNbd.connect(path)
    const all = Buffer.concat([
      u32(3),
      optionBytes(OPTION.list, Buffer.of(1, 2, 3)),
      optionBytes(OPTION.list, Buffer.of()),
    ])
    client.socket.end(all.subarray(0, bytes))
    await client.disconnected()
    expect(faults).toEqual(expected)
    await server.close()
  })
})
