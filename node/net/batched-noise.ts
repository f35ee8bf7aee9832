import { type NoiseComponents, type NoiseExtensions, noise } from '@chainsafe/libp2p-noise'
import { type ConnectionEncrypter, type MessageStream, serviceCapabilities } from '@libp2p/interface'
import { batched } from './batched-connection.ts'
import { noiseCrypto } from './noise-crypto.ts'
import { watchSilence } from './watch-silence.ts'

/** Noise with our cryptography, over connections that are written in large pieces, and end when they fall silent. The bytes are the same. */
export function batchedNoise(): (components: NoiseComponents) => ConnectionEncrypter<NoiseExtensions> {
  return (components) => {
    const inner = noise({ crypto: noiseCrypto })(components)
    const encrypter = {
      protocol: inner.protocol,
      [serviceCapabilities]: ['@libp2p/connection-encryption'],
      secureInbound: (connection, options) => inner.secureInbound(watched(connection), options),
      secureOutbound: (connection, options) => inner.secureOutbound(watched(connection), options),
    } satisfies ConnectionEncrypter<NoiseExtensions> & Record<symbol, readonly string[]>
    return encrypter
  }
}

function watched(connection: MessageStream): MessageStream {
  watchSilence(connection)
  return batched(connection)
}
