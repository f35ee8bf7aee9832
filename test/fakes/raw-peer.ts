import { noise } from '@chainsafe/libp2p-noise'
import type { Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { onTestFinished } from 'vitest'
import type { MeshHost } from '../../node/net/host.ts'

/** A proven peer, with libp2p as it comes, that writes what bytes it likes on its streams. */
export interface RawPeer {
  readonly peerId: string
  /** A stream with the protocol agreed on. */
  open(protocol: string): Promise<Stream>
  /** A stream on which `bytes` travel together with the choice of the protocol, and then `end` happens at once. */
  rush(protocol: string, bytes: Uint8Array, end: 'close' | 'abort'): Promise<void>
}

/** Connects a raw peer to `host`; it goes when the test ends. */
export async function rawPeer(host: MeshHost): Promise<RawPeer> {
  const node = await createLibp2p({
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
  })
  onTestFinished(async () => {
    await node.stop()
  })
  const connection = await node.dial(multiaddr(`${host.addresses()[0]}/p2p/${host.peerId}`))
  return {
    peerId: node.peerId.toString(),
    open: (protocol) => connection.newStream(protocol, { maxOutboundStreams: 1000 }),
    async rush(protocol, bytes, end) {
      // The muxer below the connection, which leaves choosing a protocol to us.
      const { muxer } = connection as unknown as { muxer: { createStream(): Promise<Stream> } }
      const stream = await muxer.createStream()
      stream.send(Buffer.concat([chosen('/multistream/1.0.0'), chosen(protocol), bytes]))
      if (end === 'close') await stream.close()
      else stream.abort(new Error('in a hurry'))
    },
  }
}

/** A line of multistream-select: length, text, newline. */
function chosen(text: string): Uint8Array {
  return Buffer.from(`${String.fromCharCode(text.length + 1)}${text}\n`)
}
