import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { describe, expect, it } from 'vitest'
import { encodeFrame } from '../../../protocol/frames.ts'
import type { Message } from '../../../protocol/messages.ts'
import { Random } from '../../../tools/lab/random.ts'
import { PROTOCOL, useHosts } from '../../support/hosts.ts'
import { testSeed } from '../../support/seed.ts'
import { stockNode } from '../../support/stock-node.ts'

const MIB = 1024 * 1024
/** More than the largest window that yamux grows to by itself, 16 MiB. */
const TOTAL_BYTES = 20 * MIB

/** Messages of all lengths, from none to the largest, until they are more than any window. */
function someMessages(random: Random): Message[] {
  const lengths = [0, 1, 65_536, MIB]
  const messages: Message[] = []
  for (let bytes = 0; bytes < TOTAL_BYTES; ) {
    const length = lengths.shift() ?? random.below(random.below(4) === 0 ? 300_000 : 9_000)
    messages.push({ type: 'file-reply', found: true, payload: random.bytes(length) })
    bytes += length
  }
  return messages
}

const asBytes = (messages: readonly Message[]): Buffer => Buffer.concat(messages.flatMap(encodeFrame))

describe('a stock libp2p peer', () => {
  const start = useHosts()

  it('is dialled by us, and sends back what we send', async () => {
    const random = new Random(testSeed('interop, dialled'))
    const [host, stock] = [await start('a'), await stockNode()]
    await stock.handle(PROTOCOL, (stream) => {
      stream.addEventListener('message', ({ data }) => stream.send(data))
      stream.addEventListener('remoteCloseWrite', () => void stream.close())
    })
    await host.connect(stock.peerId.toString(), stock.getMultiaddrs().map(String))
    const stream = await host.open(stock.peerId.toString(), PROTOCOL)
    const messages = someMessages(random)
    const sending = (async () => {
      for (const message of messages) await stream.send(message)
      await stream.close()
    })()
    const returned: Message[] = []
    for await (const message of stream.messages()) returned.push(message)
    await sending
    expect(returned).toHaveLength(messages.length)
    expect(asBytes(returned).equals(asBytes(messages))).toBe(true)
    expect(stream.bytesReceived).toBe(stream.bytesSent)
  })

  it('dials us, and gets back what it sends', async () => {
    const random = new Random(testSeed('interop, dialling'))
    const [host, stock] = [await start('a'), await stockNode()]
    await host.handle(PROTOCOL, async (stream) => {
      for await (const message of stream.messages()) await stream.send(message)
    })
    const connection = await stock.dial(multiaddr(`${host.addresses()[0]}/p2p/${host.peerId}`))
    const stream: Stream = await connection.newStream(PROTOCOL)
    const returned: Uint8Array[] = []
    const ended = new Promise<void>((resolve) => {
      stream.addEventListener('message', ({ data }) => void returned.push(data.subarray()))
      stream.addEventListener('remoteCloseWrite', () => resolve())
    })
    const bytes = asBytes(someMessages(random))
    for (let at = 0; at < bytes.byteLength; ) {
      const end = at + 1 + random.below(100_000)
      stream.send(bytes.subarray(at, end))
      at = end
      if (stream.writableNeedsDrain)
        await new Promise((resolve) => stream.addEventListener('drain', resolve, { once: true }))
    }
    await stream.close()
    await ended
    expect(Buffer.concat(returned).equals(bytes)).toBe(true)
  })
})
