import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it } from 'vitest'
import { STREAM_WINDOW_BYTES } from '../../../node/net/limits.ts'
import { encodeFrame } from '../../../protocol/frames.ts'
import { PROTOCOL, useHosts } from '../../support/hosts.ts'
import { stockNode } from '../../support/stock-node.ts'

/** What yamux's header and the choice of a protocol take of a window. */
const OVERHEAD_BYTES = 1024

/** What a stock stream may send at once, as it was last told: yamux keeps its largest message to that. */
const mayWrite = (stream: Stream): number => (stream as Stream & { maxMessageSize: number }).maxMessageSize

/** Resolves when the whole window is announced; no more ever is. */
async function announced(stream: Stream): Promise<void> {
  await expect.poll(() => mayWrite(stream)).toBeGreaterThan(STREAM_WINDOW_BYTES - OVERHEAD_BYTES)
  expect(mayWrite(stream)).toBeLessThan(STREAM_WINDOW_BYTES)
}

describe('the window of a stream', () => {
  const start = useHosts()

  it('that a stock peer opens stays at 256 KiB, however much comes', async () => {
    const [host, stock] = [await start('a'), await stockNode()]
    let received = 0
    await host.handle(PROTOCOL, async (stream) => {
      for await (const message of stream.messages())
        if (message.type === 'file-reply') received += message.payload.byteLength
    })
    const connection = await stock.dial(multiaddr(`${host.addresses()[0]}/p2p/${host.peerId}`))
    const stream = await connection.newStream(PROTOCOL)
    const payload = Buffer.alloc(100 * 1024)
    for (let i = 1; i <= 30; i++) {
      for (const piece of encodeFrame({ type: 'file-reply', found: true, payload })) stream.send(piece)
      await expect.poll(() => received).toBe(i * payload.byteLength)
      expect(mayWrite(stream)).toBeLessThanOrEqual(256 * 1024)
    }
  })

  it('is announced to a stock peer to which the stream is opened', async () => {
    const [host, stock] = [await start('a'), await stockNode()]
    const opened: Stream[] = []
    await stock.handle(PROTOCOL, (stream) => void opened.push(stream))
    await host.connect(stock.peerId.toString(), stock.getMultiaddrs().map(String))
    for (let i = 0; i < 3; i++) {
      await host.open(stock.peerId.toString(), PROTOCOL)
      await expect.poll(() => opened.length).toBe(i + 1)
      await announced(opened[i]!)
    }
  })

  it('of a stock peer that does not read is not overrun', async () => {
    const [host, stock] = [await start('a'), await stockNode()]
    const opened = Promise.withResolvers<Stream>()
    await stock.handle(PROTOCOL, (stream) => {
      stream.pause()
      opened.resolve(stream)
    })
    await host.connect(stock.peerId.toString(), stock.getMultiaddrs().map(String))
    const stream = await host.open(stock.peerId.toString(), PROTOCOL)
    const payload = Buffer.alloc(1024 * 1024)
    const count = 20
    const sending = (async () => {
      for (let i = 0; i < count; i++) await stream.send({ type: 'file-reply', found: true, payload })
      await stream.close()
    })()
    const paused = await opened.promise
    await expect.poll(() => paused.readBufferLength).toBeGreaterThan(200 * 1024)
    let received = 0
    paused.addEventListener('message', ({ data }) => {
      received += data.byteLength
    })
    paused.resume()
    await sending
    await expect.poll(() => received).toBe(stream.bytesSent)
  })
})
