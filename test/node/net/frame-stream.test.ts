import { describe, expect, it } from 'vitest'
import type { FrameStream } from '../../../node/net/frame-stream.ts'
import { MAX_STREAMS_PER_PROTOCOL, STREAM_BACKLOG_BYTES, STREAM_WINDOW_BYTES } from '../../../node/net/limits.ts'
import { MAX_WANTS_PER_MESSAGE } from '../../../protocol/constants.ts'
import { encodeFrame } from '../../../protocol/frames.ts'
import type { Message } from '../../../protocol/messages.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { rawPeer } from '../../fakes/raw-peer.ts'
import { codeOf } from '../../support/error-code.ts'
import { acceptStreams, PROTOCOL, settled, streamBetween, useHosts } from '../../support/hosts.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'

const MIB = 1024 * 1024
const request = (name: string): Message => ({ type: 'file-request', name })
const reply = (bytes: number, fill = 0): Message => ({
  type: 'file-reply',
  found: true,
  payload: Buffer.alloc(bytes, fill),
})

/** All that is left on a stream: how many messages, and the code of what ended it. */
async function readToEnd(stream: FrameStream): Promise<{ count: number; end: string }> {
  let count = 0
  const end = await codeOf(async () => {
    for await (const _ of stream.messages()) count++
  })
  return { count, end }
}

describe('frame stream', () => {
  const start = useHosts()

  it('keeps what waits bounded while 200 MiB are pushed at a slow reader', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await streamBetween(a, b)
    const total = 200 * MIB
    const sending = (async () => {
      for (let sent = 0; sent < total; sent += 65536) await client.send(reply(65536, (sent / 65536) % 251))
      await client.close()
    })()
    let taken = 0
    let undelivered = 0
    let underway = 0
    for await (const message of server.messages()) {
      if (message.type !== 'file-reply') throw new Error(message.type)
      expect(message.payload[65535]).toBe((taken / 65536) % 251)
      taken += message.payload.byteLength
      undelivered = Math.max(undelivered, server.bytesReceived - taken)
      underway = Math.max(underway, client.bytesSent - server.bytesReceived)
      // Now and then the reader is busy with something else, as when a disk flushes.
      if (taken % (8 * MIB) === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await sending
    expect(taken).toBe(total)
    // One window may arrive at once when the reader has just taken half of what waited.
    expect(undelivered).toBeLessThan(STREAM_BACKLOG_BYTES + 2 * STREAM_WINDOW_BYTES)
    expect(undelivered).toBeGreaterThan(65536)
    // On the way: the window, libp2p's write buffer, and both kernels' socket buffers.
    expect(underway).toBeLessThan(24 * MIB)
    expect(client.bytesSent).toBe(server.bytesReceived)
  })

  it('takes no more than a window when the reader stops again at once', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await streamBetween(a, b)
    let sent = 0
    const sending = (async () => {
      for (; sent < 1000; sent++) await client.send(reply(65536, sent % 251))
      await client.close()
    })()
    const received = server.messages()
    let taken = 0
    const takeOne = async (): Promise<void> => {
      const { value } = await received.next()
      expect(value).toMatchObject({ type: 'file-reply' })
      expect(value.payload[0]).toBe(taken++ % 251)
    }
    await takeOne()
    const before = await settled(() => server.bytesReceived)
    // The stream goes on when half of the backlog is taken; what it has kept back until then stops it again.
    while (server.bytesReceived === before) await takeOne()
    await settled(() => sent)
    while (taken < 1000) await takeOne()
    expect((await received.next()).done).toBe(true)
    await sending
  })

  it('counts long lists for what they take in memory', async () => {
    const host = await start('a')
    const accept = await acceptStreams(host)
    const peer = await rawPeer(host)
    const requests = Array.from({ length: MAX_WANTS_PER_MESSAGE }, (_, id) => {
      return { id, digest: Buffer.alloc(32, 1), level: 0, index: id, size: 65536, granules: new Uint8Array() }
    })
    const gained = RangeSet.from(Array.from({ length: 16384 }, (_, i): [number, number] => [2 * i, 2 * i + 1]))
    const lists: Message[] = [
      { type: 'want', requests, packFrom: 0 },
      { type: 'have', root: Buffer.alloc(32, 1), gained, lost: RangeSet.empty },
      { type: 'peers', peers: Array.from({ length: 4000 }, () => ({ id: '', addresses: Array(16).fill('') })) },
      { type: 'cancel', ids: [] },
    ]
    for (const message of lists) {
      const raw = await peer.open(PROTOCOL)
      const frame = Buffer.concat(encodeFrame(message))
      const frames = Buffer.concat(Array(Math.ceil(MIB / frame.byteLength)).fill(frame))
      const server = await accept()
      for (let sent = 0; sent < 8 * MIB; sent += frames.byteLength) raw.send(frames)
      const received = await settled(() => server.bytesReceived)
      // By their bytes alone all of the backlog's limit would be taken, and be many times as much when decoded.
      expect(received, message.type).toBeLessThan(2 * STREAM_WINDOW_BYTES + frame.byteLength)
      expect(received).toBeGreaterThan(0)
      raw.abort(new Error('enough'))
    }
  })

  it('sends what comes in one turn together, up to a limit', async () => {
    const host = await start('a')
    const accept = await acceptStreams(host)
    const peer = await rawPeer(host)
    const raw = await peer.open(PROTOCOL)
    const arrived: number[] = []
    raw.addEventListener('message', ({ data }) => arrived.push(data.byteLength))
    raw.send(Buffer.concat(encodeFrame(request('hello'))))
    const server = await accept()
    for (let i = 0; i < 50; i++) void server.send(reply(1000))
    await expect.poll(() => arrived).toEqual([server.bytesSent])
    await server.send(request('at the end of a turn'))
    await server.send(request('still the same'))
    const before = server.bytesSent
    await expect.poll(() => arrived.slice(1)).toEqual([before - arrived[0]!])
    // What is much does not wait for the end of the turn, nor does the sender run ahead of the stream.
    for (let i = 0; i < 100; i++) await server.send(reply(65536))
    await expect.poll(() => arrived.reduce((sum, bytes) => sum + bytes)).toBe(server.bytesSent)
    expect(Math.max(...arrived)).toBeLessThan(STREAM_WINDOW_BYTES)
  })

  it('delivers everything that was sent before the end, also to a reader that comes late', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await streamBetween(a, b)
    const sending = (async () => {
      for (let i = 0; i < 100; i++) await client.send(reply(100_000, i))
      await client.close()
    })()
    await settled(() => server.bytesReceived)
    expect(await readToEnd(server)).toEqual({ count: 100, end: 'OK' })
    await sending
    await server.send(request('the other direction is still open'))
    expect((await client.messages().next()).value).toEqual(request('the other direction is still open'))
    expect(client.bytesReceived).toBe(server.bytesSent)
  })

  it('sees the end or the reset that came before it was made', async () => {
    const host = await start('a')
    const ends: { count: number; end: string }[] = []
    await host.handle(PROTOCOL, async (stream) => {
      ends.push(await readToEnd(stream))
    })
    const peer = await rawPeer(host)
    const frame = Buffer.concat(encodeFrame(request('x')))
    for (const frames of [0, 1, 3]) {
      await peer.rush(PROTOCOL, Buffer.concat(Array(frames).fill(frame)), 'close')
      await expect.poll(() => ends.shift()).toEqual({ count: frames, end: 'OK' })
      // Stepped on before or after the protocol was agreed on: in either case no handler may be left waiting.
      await peer.rush(PROTOCOL, Buffer.concat(Array(frames).fill(frame)), 'abort')
    }
    const open = await peer.open(PROTOCOL)
    await open.close()
    await expect.poll(() => ends.at(-1)?.end).toBe('OK')
    expect(ends.slice(0, -1).every(({ end }) => end === 'PEERS_UNREACHABLE')).toBe(true)
  })

  it('blames the peer for an end in the middle of a message', async () => {
    const host = await start('a')
    const accept = await acceptStreams(host)
    const peer = await rawPeer(host)
    const frame = Buffer.concat(encodeFrame(reply(1000)))
    for (const length of [1, 7, 8, 9, frame.byteLength - 1]) {
      const raw = await peer.open(PROTOCOL)
      raw.send(Buffer.concat([frame, frame.subarray(0, length)]))
      const server = await accept()
      await raw.close()
      expect(await readToEnd(server), `${length} bytes`).toEqual({ count: 1, end: 'PROTOCOL_VIOLATION' })
    }
  })

  it.each(['end', 'reset'] as const)('does not blame a peer whose machine goes down (%s)', async (how) => {
    const [a, b] = [await start('a'), await start('b')]
    const proxy = await TcpProxy.start(b.addresses()[0]!, how)
    const accept = await acceptStreams(b)
    await a.connect(b.peerId, [proxy.address])
    for (const blocks of [0, 3]) {
      if (blocks > 0) await a.connect(b.peerId, [proxy.address])
      const client = await a.open(b.peerId, PROTOCOL)
      const server = await accept()
      proxy.cutAfter(blocks * MIB + MIB / 2)
      const sending = codeOf(async () => {
        for (;;) await server.send(reply(MIB))
      })
      const read = await readToEnd(client)
      expect(read.end).toBe('PEERS_UNREACHABLE')
      expect(read.count).toBeLessThanOrEqual(blocks)
      expect(await codeOf(client.send(request('x')))).toBe('PEERS_UNREACHABLE')
      // The other side's sender, which waited for room, and its reader are woken as well.
      expect(await sending).toBe('PEERS_UNREACHABLE')
      expect((await readToEnd(server)).end).toBe('PEERS_UNREACHABLE')
      await expect.poll(() => [a.connected(), b.connected()]).toEqual([[], []])
    }
  })

  it('refuses junk within a stream, and goes on with the others', async () => {
    const host = await start('a')
    const accept = await acceptStreams(host)
    const peer = await rawPeer(host)
    const good = await peer.open(PROTOCOL)
    const goodEnd = await accept()
    for (const junk of [
      Buffer.alloc(9, 0xff),
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.alloc(8),
      Buffer.alloc(64),
    ]) {
      const bad = await peer.open(PROTOCOL)
      const badEnd = await accept()
      bad.send(junk)
      expect(await readToEnd(badEnd)).toEqual({ count: 0, end: 'PROTOCOL_VIOLATION' })
      expect(await codeOf(badEnd.send(request('x')))).toBe('PROTOCOL_VIOLATION')
      await expect.poll(() => bad.status).toBe('reset')
    }
    good.send(Buffer.concat(encodeFrame(request('still here'))))
    expect((await goodEnd.messages().next()).value).toEqual(request('still here'))
  })

  it('stops at once when it is aborted, and throws away what was not read', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await streamBetween(a, b)
    for (let i = 0; i < 10; i++) await client.send(request(`${i}`))
    const blocked = codeOf(async () => {
      for (;;) await client.send(reply(MIB))
    })
    await settled(() => server.bytesReceived)
    const reading = server.messages()
    expect((await reading.next()).value).toEqual(request('0'))
    const own = new Error('enough of it')
    server.abort(own)
    await expect(reading.next()).rejects.toBe(own)
    await expect(server.send(request('x'))).rejects.toBe(own)
    expect(await blocked).toBe('PEERS_UNREACHABLE')
    expect((await readToEnd(client)).end).toBe('PEERS_UNREACHABLE')
  })

  it('carries many streams at once, and refuses more than the limit', async () => {
    const hosts = [await start('a'), await start('b'), await start('c')]
    for (const host of hosts) {
      await host.handle(PROTOCOL, async (stream) => {
        for await (const message of stream.messages()) await stream.send(message)
      })
    }
    const pairs = hosts.flatMap((from) => hosts.filter((to) => to !== from).map((to) => [from, to] as const))
    for (const [from, to] of pairs) await from.connect(to.peerId, to.addresses())
    const streams = await Promise.all(
      pairs.flatMap(([from, to]) => {
        return Array.from({ length: MAX_STREAMS_PER_PROTOCOL }, () => from.open(to.peerId, PROTOCOL))
      }),
    )
    expect(streams).toHaveLength(6 * MAX_STREAMS_PER_PROTOCOL)
    const [first, second] = [hosts[0]!, hosts[1]!]
    expect(await codeOf(first.open(second.peerId, PROTOCOL))).toBe('PEERS_UNREACHABLE')
    await Promise.all(
      streams.map(async (stream, n) => {
        const echoed = stream.messages()
        for (let i = 0; i < 20; i++) {
          await stream.send(reply(30_000 + n, i + n))
          const { value } = await echoed.next()
          if (value?.type !== 'file-reply') throw new Error('no echo')
          expect([value.payload.byteLength, value.payload[0]]).toEqual([30_000 + n, i + n])
        }
        await stream.close()
        expect((await echoed.next()).done).toBe(true)
      }),
    )
    // Closed on both sides, so there is room again.
    const again = await first.open(second.peerId, PROTOCOL)
    await again.send(request('again'))
    expect((await again.messages().next()).value).toEqual(request('again'))
  })

  it('refuses the streams of a peer that opens more than its share', async () => {
    const host = await start('a')
    const accept = await acceptStreams(host)
    const peer = await rawPeer(host)
    const streams = []
    for (let i = 0; i < MAX_STREAMS_PER_PROTOCOL; i++) {
      streams.push(await peer.open(PROTOCOL))
      await accept()
    }
    const beyond = await peer.open(PROTOCOL)
    await expect.poll(() => beyond.status).toBe('reset')
    expect(streams.map(({ status }) => status)).toEqual(Array(MAX_STREAMS_PER_PROTOCOL).fill('open'))
  })

  it('does not wait for ever for a peer that takes nothing when it closes', async () => {
    const [a, b] = [await start('a'), await start('b')]
    const [client, server] = await streamBetween(a, b)
    const sending = codeOf(async () => {
      for (;;) await client.send(reply(MIB))
    })
    await settled(() => server.bytesReceived)
    expect(await codeOf(client.close())).toBe('REQUEST_TIMEOUT')
    expect(await sending).toBe('REQUEST_TIMEOUT')
  })
})
