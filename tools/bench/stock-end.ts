import { noise } from '@chainsafe/libp2p-noise'
import type { Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { SMALL_DEPTH, type TransportEnd } from './transport-end.ts'

/** Bytes of a request: how many payloads, and their size. */
const REQUEST_BYTES = 8

/** libp2p with its own settings, and without any framing of messages, which the mesh has on top. */
export async function stockEnd(protocol: string, listen: string): Promise<TransportEnd> {
  const node = await createLibp2p({
    addresses: { listen: [listen] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { abortConnectionOnPingFailure: false },
  })
  await node.handle(protocol, (stream) => void answer(stream))
  let opened: Stream | undefined
  let received = 0
  let wake = (): void => undefined
  const takeUntil = async (bytes: number): Promise<void> => {
    while (received < bytes) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
  return {
    peerId: node.peerId.toString(),
    address: node.getMultiaddrs()[0]!.toString(),
    async connect(_peerId, address) {
      opened = await node.dialProtocol(multiaddr(address), protocol)
      opened.addEventListener('message', ({ data }) => {
        received += data.byteLength
        wake()
      })
    },
    async bulk(count, size) {
      received = 0
      opened!.send(request(count, size))
      await takeUntil(count * size)
    },
    async small(count, size) {
      received = 0
      for (let asked = 0, i = 0; i < count; i++) {
        for (; asked < Math.min(count, i + SMALL_DEPTH); asked++) opened!.send(request(1, size))
        await takeUntil((i + 1) * size)
      }
    },
  }
}

async function answer(stream: Stream): Promise<void> {
  let rest = Buffer.alloc(0)
  let turn = Promise.resolve()
  stream.addEventListener('message', ({ data }) => {
    rest = Buffer.concat([rest, data.subarray()])
    for (; rest.byteLength >= REQUEST_BYTES; rest = rest.subarray(REQUEST_BYTES)) {
      const [count, size] = [rest.readUInt32BE(0), rest.readUInt32BE(4)]
      turn = turn.then(() => sendAll(stream, count, Buffer.alloc(size, 1)))
    }
  })
}

async function sendAll(stream: Stream, count: number, payload: Uint8Array): Promise<void> {
  for (let i = 0; i < count; i++) {
    stream.send(payload)
    // `onDrain` would wait only once.
    while (stream.writableNeedsDrain) {
      await new Promise((resolve) => stream.addEventListener('drain', resolve, { once: true }))
    }
  }
}

function request(count: number, size: number): Uint8Array {
  const bytes = Buffer.alloc(REQUEST_BYTES)
  bytes.writeUInt32BE(count, 0)
  bytes.writeUInt32BE(size, 4)
  return bytes
}
