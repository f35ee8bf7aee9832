import { noise } from '@chainsafe/libp2p-noise'
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import type { Connection, PeerId } from '@libp2p/interface'
import { mdns } from '@libp2p/mdns'
import { peerIdFromString } from '@libp2p/peer-id'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p, type Libp2p } from 'libp2p'
import {
  DIAL_DEADLINE_MS,
  MAX_MEMBERS,
  MAX_STREAMS_PER_PROTOCOL,
  STREAM_WINDOW_BYTES,
} from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { type FrameStream, Libp2pFrameStream } from './frame-stream.ts'
import { connectionGater, type Gate } from './gate.ts'

export interface HostOptions {
  /** Raw Ed25519 key, 32 bytes each. */
  readonly key: { readonly seed: Uint8Array; readonly publicKey: Uint8Array }
  /** Multiaddrs; none for a node that only dials. */
  readonly listen: readonly string[]
  readonly gate: Gate
  /** Name under which nodes of one site find each other by multicast DNS; absent: they do not. */
  readonly mdnsTag?: string
  /** What went wrong in a protocol handler; the stream concerned is aborted. */
  readonly onError?: (peerId: string, error: unknown) => void
}

export type StreamHandler = (stream: FrameStream) => Promise<void>

/** One libp2p node: TCP, noise, yamux, identify, and multicast DNS. The only thing in the code that knows libp2p. */
export class MeshHost {
  readonly #node: Libp2p
  readonly #onError: (peerId: string, error: unknown) => void

  private constructor(node: Libp2p, onError: (peerId: string, error: unknown) => void) {
    this.#node = node
    this.#onError = onError
  }

  /** Starts listening. Errors: ADDRESS_INVALID, PORT_TAKEN. */
  static async start(options: HostOptions): Promise<MeshHost> {
    const listen = options.listen.map((address) => parseAddress(address).toString())
    const privateKey = privateKeyFromRaw(Buffer.concat([options.key.seed, options.key.publicKey]))
    try {
      const node = await createLibp2p({
        privateKey,
        addresses: { listen },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [
          yamux({
            streamOptions: { initialStreamWindowSize: STREAM_WINDOW_BYTES, maxStreamWindowSize: STREAM_WINDOW_BYTES },
          }),
        ],
        connectionGater: connectionGater(options.gate),
        connectionManager: {
          // A lab starts all at once, and in tests from one address.
          inboundConnectionThreshold: MAX_MEMBERS,
          maxIncomingPendingConnections: MAX_MEMBERS,
          maxConnections: MAX_MEMBERS,
          dialTimeout: DIAL_DEADLINE_MS,
          reconnectRetries: 0,
        },
        // Bulk data delays pings; our own deadlines are on progress.
        connectionMonitor: { abortConnectionOnPingFailure: false },
        services: { identify: identify() },
        ...(options.mdnsTag === undefined
          ? {}
          : { peerDiscovery: [mdns({ serviceTag: options.mdnsTag, interval: 5_000 })] }),
      })
      return new MeshHost(node, options.onError ?? (() => undefined))
    } catch (error) {
      throw listenError(error, listen)
    }
  }

  get peerId(): string {
    return this.#node.peerId.toString()
  }

  /** Where this node listens, without the peer id; wildcard addresses as the interfaces they stand for. */
  addresses(): string[] {
    return this.#node.getMultiaddrs().map(withoutPeerId)
  }

  /** Connects to a peer at the first of its addresses that answers. Errors: PEERS_UNREACHABLE. */
  async connect(peerId: string, addresses: readonly string[], signal?: AbortSignal): Promise<void> {
    const valid = addresses.flatMap((address) => {
      try {
        return [multiaddr(`${address}/p2p/${peerId}`)]
      } catch {
        return []
      }
    })
    try {
      if (valid.length === 0) throw new Error('no valid address is known')
      const deadline = AbortSignal.timeout(DIAL_DEADLINE_MS)
      await this.#node.dial(valid, { signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]) })
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new MeshError(
        'PEERS_UNREACHABLE',
        `${peerId} cannot be reached at ${addresses.join(', ') || 'any address'}: ${why}`,
        {
          cause,
        },
      )
    }
  }

  /** Opens a stream to a connected peer. Errors: PEERS_UNREACHABLE. */
  async open(peerId: string, protocol: string): Promise<FrameStream> {
    const connection = this.#node.getConnections(peerIdFromString(peerId)).find((open) => open.status === 'open')
    try {
      if (connection === undefined) throw new Error('not connected')
      const stream = await connection.newStream(protocol, {
        signal: AbortSignal.timeout(DIAL_DEADLINE_MS),
        maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL,
      })
      return new Libp2pFrameStream(stream, peerId)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new MeshError('PEERS_UNREACHABLE', `no ${protocol} stream to ${peerId}: ${why}`, { cause })
    }
  }

  /** Serves a protocol. A handler that fails costs its peer the stream, nothing else. */
  async handle(protocol: string, handler: StreamHandler): Promise<void> {
    await this.#node.handle(
      protocol,
      (stream, connection) => {
        const frames = new Libp2pFrameStream(stream, connection.remotePeer.toString())
        handler(frames).then(
          () => frames.close().catch((error: unknown) => this.#onError(frames.peerId, error)),
          (error: unknown) => {
            frames.abort(error instanceof Error ? error : new Error(String(error)))
            this.#onError(frames.peerId, error)
          },
        )
      },
      { maxInboundStreams: MAX_STREAMS_PER_PROTOCOL },
    )
  }

  connected(): string[] {
    return this.#node.getPeers().map(String)
  }

  /** Addresses a connected peer was reached at or says it listens on. */
  async addressesOf(peerId: string): Promise<string[]> {
    const id = peerIdFromString(peerId)
    const told = await this.#node.peerStore.get(id).then(
      (peer) => peer.addresses.map((address) => withoutPeerId(address.multiaddr)),
      () => [],
    )
    const dialed = this.#node.getConnections(id).flatMap((open: Connection) => {
      return open.direction === 'outbound' ? [withoutPeerId(open.remoteAddr)] : []
    })
    return [...new Set([...dialed, ...told])]
  }

  onConnect(listener: (peerId: string) => void): void {
    this.#node.addEventListener('peer:connect', (event: CustomEvent<PeerId>) => listener(event.detail.toString()))
  }

  onDisconnect(listener: (peerId: string) => void): void {
    this.#node.addEventListener('peer:disconnect', (event: CustomEvent<PeerId>) => listener(event.detail.toString()))
  }

  /** A node of the site was seen on the network; it is not connected by that. */
  onDiscover(listener: (peerId: string, addresses: string[]) => void): void {
    this.#node.addEventListener('peer:discovery', (event) => {
      listener(event.detail.id.toString(), event.detail.multiaddrs.map(withoutPeerId))
    })
  }

  async disconnect(peerId: string): Promise<void> {
    await this.#node.hangUp(peerIdFromString(peerId))
  }

  async stop(): Promise<void> {
    await this.#node.stop()
  }
}

function parseAddress(text: string): Multiaddr {
  try {
    return multiaddr(text)
  } catch (cause) {
    throw new MeshError('ADDRESS_INVALID', `${text} is no multiaddr`, { cause })
  }
}

function withoutPeerId(address: Multiaddr): string {
  return address.toString().replace(/\/p2p\/[^/]+$/, '')
}

function listenError(error: unknown, listen: readonly string[]): unknown {
  const texts: string[] = []
  const collect = (at: unknown): void => {
    if (!(at instanceof Error)) return
    texts.push(`${'code' in at ? String(at.code) : ''} ${at.message}`)
    collect(at.cause)
    if (at instanceof AggregateError || 'errors' in at) for (const inner of at.errors as unknown[]) collect(inner)
  }
  collect(error)
  const text = texts.join('; ')
  if (text.includes('EADDRINUSE')) {
    return new MeshError('PORT_TAKEN', `another program listens on ${listen.join(' or ')}`, { cause: error })
  }
  if (/EADDRNOTAVAIL|EACCES|no valid addresses|UnsupportedListen/i.test(text)) {
    return new MeshError('ADDRESS_INVALID', `this machine cannot listen on ${listen.join(' or ')}`, { cause: error })
  }
  return error
}
