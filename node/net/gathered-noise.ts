import { type NoiseComponents, type NoiseExtensions, noise } from '@chainsafe/libp2p-noise'
import { type ConnectionEncrypter, type MessageStream, serviceCapabilities } from '@libp2p/interface'
import { SEND_GATHER_BYTES } from '../../protocol/constants.ts'
import { noiseCrypto } from './noise-crypto.ts'

/**
 * Noise with our cryptography, and with fewer writes to the socket. The library hands over a length of 2 bytes, each piece of
 * the ciphertext and the tag separately, and every one of them would be a write of its own; so would all the window updates
 * that yamux sends while one read is worked on. What is sent in one turn is put together here: a copy costs less than a
 * write. The bytes are the same.
 */
export function gatheredNoise(): (components: NoiseComponents) => ConnectionEncrypter<NoiseExtensions> {
  return (components) => {
    const inner = noise({ crypto: noiseCrypto })(components)
    const encrypter = {
      protocol: inner.protocol,
      [serviceCapabilities]: ['@libp2p/connection-encryption'],
      secureInbound: (connection, options) => inner.secureInbound(gathering(connection), options),
      secureOutbound: (connection, options) => inner.secureOutbound(gathering(connection), options),
    } satisfies ConnectionEncrypter<NoiseExtensions> & Record<symbol, readonly string[]>
    return encrypter
  }
}

/** The same connection, but what is sent on it waits for the end of the current turn. */
function gathering(connection: MessageStream): MessageStream {
  let waiting: Uint8Array[] = []
  let waitingBytes = 0

  const flush = (): void => {
    if (waiting.length === 0) return
    const data = Buffer.concat(waiting)
    waiting = []
    waitingBytes = 0
    try {
      // A connection that was closed meanwhile takes nothing.
      if (connection.status === 'open') connection.send(data)
    } catch (error) {
      connection.abort(error instanceof Error ? error : new Error(String(error)))
    }
  }

  const send: MessageStream['send'] = (data) => {
    if (connection.status !== 'open') return connection.send(data)
    // libp2p closes the connection below us, at the earliest in a microtask after the one of its last words.
    if (waiting.length === 0) queueMicrotask(flush)
    if (data instanceof Uint8Array) waiting.push(data)
    else waiting.push(...data)
    waitingBytes += data.byteLength
    if (waitingBytes >= SEND_GATHER_BYTES) flush()
    return !connection.writableNeedsDrain
  }

  return new Proxy(connection, {
    get(target, name) {
      if (name === 'send') return send
      const value = Reflect.get(target, name)
      // Its methods; what it owns, as the logger, is a function with properties perhaps.
      return typeof value === 'function' && !Object.hasOwn(target, name) ? value.bind(target) : value
    },
    set: (target, name, value) => Reflect.set(target, name, value),
  })
}
