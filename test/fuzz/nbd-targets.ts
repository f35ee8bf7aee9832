import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { type Duplex, duplexPair } from 'node:stream'
import { BufferPool } from '../../node/nbd/buffer-pool.ts'
import { agree } from '../../node/nbd/client-handshake.ts'
import { ClientReplies, type PendingRequest } from '../../node/nbd/client-replies.ts'
import { NbdConnection } from '../../node/nbd/nbd-connection.ts'
import type { NbdExport } from '../../node/nbd/nbd-export.ts'
import { COMMAND, OPTION } from '../../node/nbd/nbd-protocol.ts'
import { SharedRoom } from '../../node/nbd/shared-room.ts'
import { SocketReader } from '../../node/nbd/socket-reader.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { contextQuery, goData, optionBytes, requestBytes, text, u16, u32 } from '../support/raw-nbd.ts'
import type { Target } from './target.ts'

const DISK_BYTES = 65_536

/** A disk that knows its size. */
function exported(): NbdExport {
  const inside = (offset: number, length: number): void =>
    assert(offset >= 0 && length > 0 && offset + length <= DISK_BYTES, `${length} bytes at ${offset}`)
  return {
    name: 'disk',
    description: 'a disk',
    size: DISK_BYTES,
    readOnly: false,
    contexts: [
      {
        name: 'base:allocation',
        extents: (offset, length) => {
          inside(offset, length)
          return [{ length, flags: 0 }]
        },
      },
    ],
    read: (offset, into) => inside(offset, into.byteLength) as undefined,
    announceWrite: inside,
    write: (offset, data) => inside(offset, data.byteLength) as undefined,
    writeZeroes: async (offset, length) => inside(offset, length),
    trim: async (offset, length) => inside(offset, length),
    flush: async () => undefined,
  }
}

/** Two ends of a connection in memory. What a socket has beside a stream is there as far as it is used. */
function connection(): [Socket, Duplex] {
  const [near, far] = duplexPair()
  return [Object.assign(near, { destroySoon: () => near.end(() => near.destroy()) }) as unknown as Socket, far]
}

const server: Target = {
  name: 'nbd-server',
  errors: [],
  seeds: () => {
    const go = Buffer.concat([
      u32(3),
      optionBytes(OPTION.structuredReply, Buffer.alloc(0)),
      optionBytes(OPTION.setMetaContext, contextQuery('disk', 'base:allocation')),
      optionBytes(OPTION.go, goData('disk', 0, 3)),
    ])
    const requests = [
      { command: COMMAND.read, length: 4096 },
      { command: COMMAND.write, offset: 100, data: Buffer.alloc(600, 1) },
      { command: COMMAND.blockStatus, length: 65_536 },
      { command: COMMAND.writeZeroes, length: 8192 },
      { command: COMMAND.flush },
      { command: COMMAND.disconnect },
    ].map(requestBytes)
    return [
      Buffer.concat([go, ...requests]),
      Buffer.concat([
        u32(3),
        optionBytes(OPTION.list, Buffer.alloc(0)),
        optionBytes(OPTION.info, goData('')),
        optionBytes(OPTION.abort, Buffer.alloc(0)),
      ]),
      Buffer.concat([u32(1), optionBytes(OPTION.exportName, Buffer.from('disk')), ...requests]),
    ]
  },
  async run(input) {
    const [socket, client] = connection()
    let isRight = true
    const broken = Promise.withResolvers<never>()
    broken.promise.catch(() => undefined)
    const onFault = (error: unknown): void => {
      isRight = false
      if (!isMeshError(error, 'NBD_PROTOCOL')) broken.reject(error)
    }
    const served = new NbdConnection(socket, {
      exports: [exported()],
      shared: { pool: new BufferPool(), room: new SharedRoom(() => undefined) },
      onFault,
    })
    client.on('error', () => undefined).resume()
    for (let at = 0, width = 5; at < input.byteLength; at += width, width = (width * 7) % 1021)
      client.write(input.subarray(at, at + width))
    client.end()
    await Promise.race([served.ended, broken.promise])
    client.destroy()
    socket.destroy()
    return isRight
  },
}

const reply = (option: number, type: number, data: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from('0003e889045565a9', 'hex'), u32(option), u32(type), u32(data.byteLength), data])
const chunk = (flags: number, type: number, cookie: number, data: Uint8Array): Buffer =>
  Buffer.concat([
    u32(0x668e33ef),
    u16(flags),
    u16(type),
    Buffer.alloc(7),
    Buffer.of(cookie),
    u32(data.byteLength),
    data,
  ])

const client: Target = {
  name: 'nbd-client',
  errors: ['NBD_PROTOCOL', 'NBD_UNREACHABLE', 'NBD_ADDRESS_INVALID', 'NBD_UNSUITABLE', 'DISK_IO', 'DISK_FULL'],
  takesSeeds: false,
  seeds: () => {
    const greeting = Buffer.concat([Buffer.from('4e42444d4147494349484156454f5054', 'hex'), u16(3)])
    const facts = Buffer.concat([u16(0), Buffer.alloc(6), u16(1), u16(0), u16(0x0025)])
    const agreed = Buffer.concat([
      greeting,
      reply(8, 1, Buffer.alloc(0)),
      reply(10, 4, Buffer.concat([u32(1), Buffer.from('base:allocation')])),
      reply(10, 1, Buffer.alloc(0)),
      reply(7, 3, facts),
      reply(7, 1, Buffer.alloc(0)),
    ])
    return [
      Buffer.concat([
        agreed,
        chunk(0, 1, 1, Buffer.concat([Buffer.alloc(8), Buffer.alloc(1000, 5)])),
        chunk(1, 2, 1, Buffer.concat([Buffer.alloc(6), u16(1000), u32(3096)])),
        chunk(1, 5, 2, Buffer.concat([u32(1), u32(4096), u32(0)])),
      ]),
      Buffer.concat([agreed, chunk(1, 0x8001, 1, Buffer.concat([u32(5), text('bad').subarray(2)]))]),
      Buffer.concat([
        greeting,
        reply(8, 0x80000001, Buffer.alloc(0)),
        reply(7, 3, facts),
        reply(7, 1, Buffer.alloc(0)),
        u32(0x67446698),
        u32(0),
        Buffer.alloc(7),
        Buffer.of(1),
        Buffer.alloc(4096),
      ]),
    ]
  },
  async run(input) {
    const [socket, far] = connection()
    far.on('error', () => undefined).resume()
    far.end(input)
    const uri = 'nbd://x/'
    const reader = new SocketReader(socket, uri)
    try {
      const facts = await agree(
        reader,
        (bytes) => socket.write(bytes),
        { uri, socket: { path: '/x' }, exportName: '' },
        ['base:allocation'],
      )
      const pending = new Map<bigint, PendingRequest>()
      const settled = { resolve: () => undefined, reject: () => undefined }
      pending.set(1n, {
        command: COMMAND.read,
        offset: 0,
        length: 4096,
        into: new Uint8Array(4096),
        contextId: undefined,
        ...settled,
      })
      pending.set(2n, {
        command: COMMAND.blockStatus,
        offset: 0,
        length: 8192,
        into: undefined,
        contextId: facts.contexts.get('base:allocation') ?? 1,
        ...settled,
      })
      await new ClientReplies(reader, facts, uri, pending).run()
    } finally {
      socket.destroy()
      far.destroy()
    }
  },
}

export const NBD_TARGETS: readonly Target[] = [server, client]
