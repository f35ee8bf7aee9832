import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import type { Connection, PeerId } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { tcp } from '@libp2p/tcp'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p, type Libp2p } from 'libp2p'
import { MAX_MEMBERS, REQUEST_DEADLINE_MS } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { announced } from './announced.ts'
import { batchedNoise } from './batched-noise.ts'
import { type DialAddress, dialAddress } from './dial-address.ts'
import { dialSequence } from './dial-sequence.ts'
import { dialable, onLink } from './dialable.ts'
import { Discovery, type DiscoveryListener } from './discovery.ts'
import { type FrameStream, Libp2pFrameStream } from './frame-stream.ts'
import { connectionGater, type Gate } from './gate.ts'
import {
  ADDRESS_DIAL_DEADLINE_MS,
  DIAL_DEADLINE_MS,
  MAX_CONNECTIONS_PER_PEER,
  MAX_STREAMS_PER_PROTOCOL,
} from './limits.ts'
import { NetworkWatch } from './network-watch.ts'
import { portHolder } from './port-holder.ts'
import { AllFailed, raceAddresses } from './race-addresses.ts'
import { parseTcpAddress } from './tcp-address.ts'
import { wideYamux } from './wide-yamux.ts'

/** What a node is made of. */
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
  /** What does not work of the network on this machine, in words. */
  readonly warn?: (text: string) => void
}

/** How a connection came about. */
export interface Dialled {
  /** Where the peer answered; absent if it was connected already. */
  readonly address?: string
  /** Where somebody else answered: an address that several machines have, or that the peer no longer has. */
  readonly wrong: readonly string[]
}

/** Serves one incoming stream of a protocol until it ends. What it throws aborts the stream. */
type StreamHandler = (stream: FrameStream) => Promise<void>

/** Of a socket. Its time is over once it is connected: what is to be agreed on then takes as long as a busy peer needs. */
const DIAL_OPTIONS = { noDelay: true, timeout: ADDRESS_DIAL_DEADLINE_MS }

/** One libp2p node: TCP, noise, yamux, and multicast DNS. The only thing in the code that knows libp2p. */
export class MeshHost {
  readonly #node: Libp2p<{ readonly dial: DialAddress }>
  readonly #listen: readonly string[]
  readonly #onError: (peerId: string, error: unknown) => void
  readonly #discovered = new Set<DiscoveryListener>()
  readonly #discovery: Discovery | undefined
  /** The addresses of this machine. */
  readonly network: NetworkWatch

  private constructor(node: Libp2p<{ readonly dial: DialAddress }>, options: HostOptions) {
    const { listen, gate, mdnsTag, warn = () => undefined } = options
    this.#node = node
    this.#listen = listen
    this.#onError = options.onError ?? (() => undefined)
    this.network = new NetworkWatch()
    const found: DiscoveryListener = (peerId, addresses) => {
      // Anybody on the subnet can answer; only who may be connected is worth remembering.
      if (!gate.admits(peerId)) return
      for (const listener of this.#discovered) listener(peerId, onLink(addresses, this.network.addresses))
    }
    const common = { peerId: this.peerId, addresses: () => this.addresses(), watch: this.network, found, warn }
    this.#discovery = mdnsTag === undefined ? undefined : new Discovery({ serviceTag: mdnsTag, ...common })
  }

  /** Starts listening. Errors: ADDRESS_INVALID, PORT_TAKEN. */
  static async start(options: HostOptions): Promise<MeshHost> {
    const listen = options.listen.map((address) => parseAddress(address).toString())
    const privateKey = privateKeyFromRaw(Buffer.concat([options.key.seed, options.key.publicKey]))
    try {
      const node = await createLibp2p({
        privateKey,
        addresses: { listen },
        transports: [tcp({ dialOpts: DIAL_OPTIONS })],
        connectionEncrypters: [batchedNoise()],
        streamMuxers: [wideYamux()],
        connectionGater: connectionGater(options.gate),
        connectionManager: {
          // A lab starts all at once, and in tests from one address.
          inboundConnectionThreshold: MAX_MEMBERS,
          maxIncomingPendingConnections: MAX_MEMBERS,
          maxConnections: MAX_MEMBERS,
          reconnectRetries: 0,
        },
        // Bulk data delays its pings, so they end nothing. That each machine sends one every 10 s is what watchSilence counts on.
        connectionMonitor: { abortConnectionOnPingFailure: false },
        // Nobody is asked to identify: hello says all there is to know, and every stream of every connection costs time.
        services: { dial: dialAddress },
      })
      return new MeshHost(node, { ...options, listen })
    } catch (error) {
      throw await listenError(error, listen)
    }
  }

  get peerId(): string {
    return this.#node.peerId.toString()
  }

  /** Where others reach this node, without the peer id, the best first; what that is changes with the network cards. */
  addresses(): string[] {
    this.network.look()
    return announced(this.#listen, this.#node.getMultiaddrs().map(withoutPeerId), this.network.addresses)
  }

  /** Which of the addresses that another machine tells of may be dialled. */
  dialable(addresses: readonly string[]): string[] {
    return dialable(addresses, this.network.addresses, this.addresses())
  }

  /**
   * Connects to a peer, at the first of its addresses that answers; they are tried side by side. `worked`: the one that answered
   * last time. Errors: PEERS_UNREACHABLE, with the reasons, and in its detail `wrong`, the addresses where somebody else answered.
   */
  async connect(
    peerId: string,
    addresses: readonly string[],
    { signal, worked }: { readonly signal?: AbortSignal; readonly worked?: string | undefined } = {},
  ): Promise<Dialled> {
    if (this.#connectionTo(peerId) !== undefined) return { wrong: [] }
    const failures = new Map<string, unknown>()
    const valid = addresses.filter((address) => {
      if (isMultiaddr(address)) return true
      failures.set(address, new Error(`${address} is no multiaddr`))
      return false
    })
    try {
      if (addresses.length === 0) throw new Error('no address is known')
      const winner = await raceAddresses<Connection>(dialSequence(valid, this.network.addresses, worked), {
        attempt: (address, stop, answered) => this.#node.services.dial(peerId, address, stop, answered),
        discard: (connection) => void connection.close().catch(() => undefined),
        signal: withDeadline(signal),
      })
      return { address: winner.address, wrong: wrongOf(winner.failures) }
    } catch (cause) {
      if (cause instanceof AllFailed) for (const [address, reason] of cause.failures) failures.set(address, reason)
      const reasons = failures.size > 0 ? [...failures.values()] : [cause]
      const why = [...new Set(reasons.flatMap(reasonsOf))].join('; ')
      const where = addresses.join(', ') || 'any address'
      const detail = { wrong: wrongOf(failures) }
      throw new MeshError('PEERS_UNREACHABLE', `${peerId} cannot be reached at ${where}: ${why}`, { cause, detail })
    }
  }

  /** Connects to whoever answers at an address, and tells its peer id. Errors: PEERS_UNREACHABLE, ADDRESS_INVALID. */
  async meet(address: string): Promise<string> {
    const where = parseAddress(address).toString()
    try {
      const { value } = await raceAddresses<Connection>([where], {
        attempt: (one, stop, answered) => this.#node.services.dial(undefined, one, stop, answered),
        discard: (connection) => void connection.close().catch(() => undefined),
        signal: withDeadline(undefined),
      })
      return value.remotePeer.toString()
    } catch (cause) {
      const reasons = cause instanceof AllFailed ? [...cause.failures.values()] : [cause]
      const why = [...new Set(reasons.flatMap(reasonsOf))].join('; ')
      throw new MeshError('PEERS_UNREACHABLE', `nobody answers at ${address}: ${why}`, { cause })
    }
  }

  /** The IP address of a connected peer, as it is seen from here; empty if it is not known. */
  addressOf(peerId: string): string {
    const at = this.#connectionTo(peerId)?.remoteAddr.toString() ?? ''
    return parseTcpAddress(at)?.host ?? at
  }

  /** Opens a stream to a connected peer. Errors: PEERS_UNREACHABLE. */
  async open(peerId: string, protocol: string, signal?: AbortSignal): Promise<FrameStream> {
    try {
      const open = this.#connectionTo(peerId)
      if (open === undefined) throw new Error('not connected')
      const stream = await open.newStream(protocol, {
        signal: withDeadline(signal),
        maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL,
      })
      // A peer that has its limit of streams agrees on the protocol first and resets the stream then.
      if (stream.status !== 'open') throw new Error(`the peer refused it (${stream.status})`)
      return new Libp2pFrameStream(stream, peerId)
    } catch (cause) {
      const why = reasonsOf(cause).join('; ')
      throw new MeshError('PEERS_UNREACHABLE', `no ${protocol} stream to ${peerId}: ${why}`, { cause })
    }
  }

  /** Opens a stream on each open connection to a peer; undefined where none can be had. */
  async openAll(peerId: string, protocol: string): Promise<(FrameStream | undefined)[]> {
    const connections = this.#node.getConnections(peerIdFromString(peerId)).filter(({ status }) => status === 'open')
    const opened = await Promise.allSettled(
      connections.map((connection) =>
        connection.newStream(protocol, {
          signal: withDeadline(undefined),
          maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL,
        }),
      ),
    )
    return opened.map((one) => (one.status === 'fulfilled' ? new Libp2pFrameStream(one.value, peerId) : undefined))
  }

  /**
   * Serves a protocol, on MAX_STREAMS_PER_PROTOCOL streams of a peer at a time. A handler that fails costs its peer the stream, and is
   * told to `onError`.
   */
  async handle(protocol: string, handler: StreamHandler): Promise<void> {
    const served = new Map<string, number>()
    const count = (peerId: string, by: 1 | -1): number => {
      const streams = (served.get(peerId) ?? 0) + by
      if (streams > 0) served.set(peerId, streams)
      else served.delete(peerId)
      return streams
    }
    await this.#node.handle(
      protocol,
      (stream, connection) => {
        const peerId = connection.remotePeer.toString()
        // libp2p counts those of one connection.
        if (count(peerId, 1) > MAX_STREAMS_PER_PROTOCOL) stream.abort(new Error(`${peerId} has too many streams`))
        else void this.#serve(new Libp2pFrameStream(stream, peerId), handler)
        if (stream.status === 'open') stream.addEventListener('close', () => count(peerId, -1))
        else count(peerId, -1)
      },
      // The limit of a protocol that is served here holds for own streams too, whatever `open` asks for.
      { maxInboundStreams: MAX_STREAMS_PER_PROTOCOL, maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL },
    )
  }

  connected(): string[] {
    return this.#node.getPeers().map(String)
  }

  onConnect(listener: (peerId: string) => void): void {
    this.#node.addEventListener('peer:connect', (event: CustomEvent<PeerId>) => listener(event.detail.toString()))
  }

  /** Each connection that is opened, with how many there are to that peer then. One beyond MAX_CONNECTIONS_PER_PEER is closed instead. */
  onConnection(listener: (peerId: string, connections: number) => void): void {
    this.#node.addEventListener('connection:open', ({ detail }: CustomEvent<Connection>) => {
      // By then libp2p has counted it.
      setImmediate(() => {
        const { length } = this.#node.getConnections(detail.remotePeer)
        const peerId = detail.remotePeer.toString()
        if (length > MAX_CONNECTIONS_PER_PEER) detail.abort(new Error(`${peerId} has too many connections`))
        else listener(peerId, length)
      })
    })
  }

  /** How many connections there are to a peer. */
  connectionsTo(peerId: string): number {
    return this.#node.getConnections(peerIdFromString(peerId)).length
  }

  onDisconnect(listener: (peerId: string) => void): void {
    this.#node.addEventListener('peer:disconnect', (event: CustomEvent<PeerId>) => listener(event.detail.toString()))
  }

  /** Someone the gate admits was seen on the network, each time it is seen; it is not connected by that. */
  onDiscover(listener: DiscoveryListener): void {
    this.#discovered.add(listener)
  }

  async disconnect(peerId: string): Promise<void> {
    await this.#node.hangUp(peerIdFromString(peerId))
  }

  async stop(): Promise<void> {
    this.network.close()
    await this.#discovery?.stop()
    await this.#node.stop()
  }

  #connectionTo(peerId: string): Connection | undefined {
    return this.#node.getConnections(peerIdFromString(peerId)).find(({ status }) => status === 'open')
  }

  async #serve(stream: FrameStream, handler: StreamHandler): Promise<void> {
    try {
      await handler(stream)
      await stream.close()
      // A peer that never ends its own direction must not keep the stream.
      const late = new MeshError('REQUEST_TIMEOUT', `${stream.peerId} did not end its stream`)
      setTimeout(() => stream.abort(late), REQUEST_DEADLINE_MS).unref()
    } catch (error) {
      stream.abort(error instanceof Error ? error : new Error(String(error)))
      this.#onError(stream.peerId, error)
    }
  }
}

const PEER_ID_AT_END = /\/p2p\/[^/]+$/

function parseAddress(text: string): Multiaddr {
  try {
    return multiaddr(text)
  } catch (cause) {
    throw new MeshError('ADDRESS_INVALID', `${text} is no multiaddr`, { cause })
  }
}

function isMultiaddr(text: string): boolean {
  try {
    multiaddr(text)
    return true
  } catch {
    return false
  }
}

/** Noise proves who answers, and says this if it is not who was expected. */
const SOMEBODY_ELSE = /does not match expected remote identity key|Can not dial self/

function wrongOf(failures: ReadonlyMap<string, unknown>): string[] {
  return [...failures].flatMap(([address, reason]) => (SOMEBODY_ELSE.test(String(reason)) ? [address] : []))
}

function withoutPeerId(address: Multiaddr): string {
  return address.toString().replace(PEER_ID_AT_END, '')
}

function withDeadline(signal: AbortSignal | undefined): AbortSignal {
  const deadline = AbortSignal.timeout(DIAL_DEADLINE_MS)
  return signal === undefined ? deadline : AbortSignal.any([signal, deadline])
}

/** What went wrong, a line for each address that was tried. */
function reasonsOf(error: unknown): string[] {
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.flatMap(reasonsOf)
  const message = error instanceof Error ? error.message : String(error)
  if (SOMEBODY_ELSE.test(message)) return ['another machine answers there']
  return [message.split('\n', 1)[0] ?? '']
}

/** libp2p tells in one text, with a paragraph for each address, why it cannot listen. */
async function listenError(error: unknown, listen: readonly string[]): Promise<unknown> {
  if (!(error instanceof Error)) return error
  const why = (address: string): string => error.message.split(`\n  ${address}: `)[1]?.split('\n\n', 1)[0] ?? ''
  const taken = listen.filter((address) => why(address).includes('EADDRINUSE'))
  if (taken.length > 0) {
    const holder = (await portHolder(parseTcpAddress(taken[0]!)?.port ?? 0)) ?? 'another program'
    return new MeshError('PORT_TAKEN', `${holder} listens on ${taken.join(' and ')} already`, { cause: error })
  }
  const failed = listen.filter((address) => why(address) !== '')
  if (failed.length > 0) {
    const reason = why(failed[0]!).split('\n', 1)[0]
    const message = `this machine cannot listen on ${failed.join(' and ')}: ${reason}`
    return new MeshError('ADDRESS_INVALID', message, { cause: error })
  }
  return error
}
