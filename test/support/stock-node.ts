import { noise } from '@chainsafe/libp2p-noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p, type Libp2p } from 'libp2p'
import { onTestFinished } from 'vitest'

type Options = NonNullable<Parameters<typeof createLibp2p>[0]>

/** libp2p as it comes, without any option of noise or yamux, listening on loopback; it goes when the test ends. */
export async function stockNode(options: Pick<Options, 'privateKey'> = {}): Promise<Libp2p> {
  const node = await createLibp2p({
    ...options,
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
  })
  onTestFinished(async () => {
    await node.stop()
  })
  return node
}
