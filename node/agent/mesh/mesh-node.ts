import {
  DEFAULT_PORT,
  EXCHANGE_PROTOCOL,
  JOIN_PROTOCOL,
  MAX_ADDRESSES_PER_PEER,
  METADATA_PROTOCOL,
} from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import type { PeerAddresses } from '../../../protocol/messages.ts'
import { Swarm } from '../../exchange/ask/swarm.ts'
import type { LocalFacts } from '../../exchange/local-facts.ts'
import type { ServeLimits } from '../../exchange/serve/serve-pace.ts'
import type { ServeFigures } from '../../exchange/serve/serve-scheduler.ts'
import { ExchangeServer } from '../../exchange/serve/server.ts'
import { UplinkFigures } from '../../exchange/uplink/uplink-figures.ts'
import { UplinkGate } from '../../exchange/uplink/uplink-gate.ts'
import { type UplinkLimit, UplinkPace } from '../../exchange/uplink/uplink-pace.ts'
import { dialRank, dialRoom } from '../../net/dial-rule.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import type { MeshHost } from '../../net/host.ts'
import type { Holding } from '../../store/block-source.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { Dialer } from './dialer.ts'
import { MetadataSync, serveMetadata } from './metadata-sync.ts'

export interface MeshNodeOptions {
  readonly machine: Machine
  readonly listen?: readonly string[] | undefined
  readonly mdns?: boolean | undefined
  readonly report: (event: AgentEvent) => void
  /** How long a fetch waits for a first peer, and for somebody who holds what is missing; default: the constants. */
  readonly waitMs?: number | undefined
  /** Begins with a few connections and makes more as long as it runs: a small restore needs no more than a few. */
  readonly gradual?: boolean | undefined
  /** The master's part in enrolment: whether strangers may connect, and how their requests are answered. */
  readonly enrolment?: { readonly isOpen: () => boolean; readonly serve: (stream: FrameStream) => Promise<void> }
}

const CLOCK = { now: () => performance.now(), local: () => new Date() }

export const DEFAULT_LISTEN = [`/ip4/0.0.0.0/tcp/${DEFAULT_PORT}`]

/** This machine on the network: connected to all members it can reach, fetching, serving, and keeping metadata new. */
export class MeshNode {
  readonly swarm: Swarm
  readonly #host: MeshHost
  readonly #machine: Machine
  readonly #report: (event: AgentEvent) => void
  readonly #server: ExchangeServer
  readonly #dialer: Dialer
  readonly #sync: MetadataSync
  /** What has crossed the uplink. */
  readonly uplink: UplinkFigures
  readonly #gate: UplinkGate
  readonly #holdings: Holding[] = []
  /** Connected peers that are, or were, members. */
  readonly #members = new Set<string>()
  readonly #startedAt = Date.now()
  readonly #gradual: boolean
  #stopping = false

  /** libp2p is loaded here and not before. Errors: PORT_TAKEN, ADDRESS_INVALID. */
  static async start(options: MeshNodeOptions): Promise<MeshNode> {
    const { machine } = options
    const [{ MeshHost }, key] = await Promise.all([import('../../net/host.ts'), machine.key()])
    const isMember = (peerId: string): boolean => machine.trust.view().memberById(peerId) !== undefined
    const saved = machine.config.listen.length > 0 ? machine.config.listen : DEFAULT_LISTEN
    const host = await MeshHost.start({
      key,
      listen: options.listen !== undefined && options.listen.length > 0 ? options.listen : saved,
      gate: { admits: (peerId) => isMember(peerId) || options.enrolment?.isOpen() === true },
      onError: (peerId, error) => {
        const why = error instanceof Error ? error.message : String(error)
        if (error instanceof MeshError && error.code === 'PROTOCOL_VIOLATION') {
          options.report({ type: 'warning', text: `${machine.nameOf(peerId)} broke the protocol: ${why}` })
        }
      },
      ...(options.mdns === false ? {} : { mdnsTag: serviceTag(machine) }),
    })
    const node = new MeshNode(host, options)
    await node.#begin(isMember, options)
    return node
  }

  private constructor(host: MeshHost, options: MeshNodeOptions) {
    const { machine, report } = options
    this.#host = host
    this.#machine = machine
    this.#report = report
    this.#gradual = options.gradual === true
    this.uplink = new UplinkFigures((peerId) => this.#whoIsFar(peerId))
    this.#gate = new UplinkGate({ siteOf: (peerId) => this.#whoIsFar(peerId)?.site, figures: this.uplink })
    const warn = (text: string): void => report({ type: 'warning', text })
    this.#sync = new MetadataSync({
      trust: machine.trust,
      open: (peerId, protocol) => host.open(peerId, protocol),
      warn,
      nameOf: (peerId) => machine.nameOf(peerId),
      received: (peerId, bytes) => this.uplink.count(peerId, 'in', 'metadata', bytes),
    })
    this.swarm = new Swarm({
      self: host.peerId,
      isFar: (peerId) => !this.#isNear(peerId),
      nearSettled: () => this.#nearSettled(),
      onReceived: (peerId, level, bytes) => this.uplink.count(peerId, 'in', level === 0 ? 'blocks' : 'pages', bytes),
      onWanting: () => this.#dialer.look(),
      isReluctant: (peerId) => machine.trust.view().memberById(peerId)?.role === 'master',
      open: (peerId) => host.open(peerId, EXCHANGE_PROTOCOL),
      local: () => this.#facts(),
      ...(options.waitMs === undefined ? {} : { peerWaitMs: options.waitMs, holderWaitMs: options.waitMs }),
      onVersions: (peerId, versions) => void this.#sync.heard(peerId, versions),
      onPeers: (list) => this.#learnPeers(list),
      onBan: (peerId, reason) => {
        warn(`${machine.nameOf(peerId)} ${reason}; it is not asked again`)
        void this.#host.disconnect(peerId)
      },
    })
    this.#server = new ExchangeServer({
      local: () => this.#facts(),
      holdings: () => this.#holdings,
      peers: () => this.#reachablePeers(),
      gate: this.#gate,
      onFetching: (peerId, message) => this.swarm.heardFetching(peerId, message),
      onHello: (peerId, hello) => {
        this.#dialer.learn(peerId, hello.addresses)
        void this.#sync.heard(peerId, hello.metadata)
      },
    })
    this.#dialer = new Dialer({
      shelf: machine.state.sublevel<readonly string[]>('addresses'),
      connect: (peerId, addresses) => host.connect(peerId, addresses),
      isWanted: (peerId) => this.#isWanted(peerId),
      rank: (peerId) => this.#dialRank(peerId),
      room: (rank) => this.#dialRoom(rank),
    })
  }

  get peerId(): string {
    return this.#host.peerId
  }

  addresses(): string[] {
    return this.#host.addresses()
  }

  /** Members connected now. */
  connectedMembers(): { id: string; name: string }[] {
    const view = this.#machine.trust.view()
    return this.#host.connected().flatMap((id) => {
      const member = view.memberById(id)
      return member === undefined ? [] : [{ id, name: member.name }]
    })
  }

  /** Serves another protocol to members. */
  async handle(protocol: string, serve: (stream: FrameStream) => Promise<void>): Promise<void> {
    await this.#host.handle(protocol, this.#membersOnly(serve))
  }

  /** Opens a stream to a connected member. Errors: PEERS_UNREACHABLE. */
  open(peerId: string, protocol: string): Promise<FrameStream> {
    return this.#host.open(peerId, protocol)
  }

  /** Tells peers what else can be had here. */
  hold(holding: Holding): void {
    this.#holdings.push(holding)
    this.#server.holdingsChanged()
  }

  /** What may cross between this machine and other sites; undefined: all that there is. */
  limitUplink(limit: UplinkLimit | undefined): void {
    this.swarm.limitUplink(limit === undefined ? undefined : new UplinkPace(limit, CLOCK))
    this.#gate.limit(limit, CLOCK)
  }

  /** What serving others may take of this machine. */
  limitServing(limits: ServeLimits): void {
    this.#server.limit(limits)
  }

  serving(): ServeFigures {
    return this.#server.figures()
  }

  drop(holding: Holding): void {
    const at = this.#holdings.indexOf(holding)
    if (at === -1) return
    this.#holdings.splice(at, 1)
    this.#server.holdingsChanged()
  }

  /** Resolves when no newer metadata that a peer told of is being fetched. */
  metadataSettled(): Promise<void> {
    return this.#sync.settled()
  }

  /** Asks one connected member whether there is newer metadata. */
  async askForNews(): Promise<void> {
    const members = this.connectedMembers()
    const one = members[Math.floor(Math.random() * members.length)]
    if (one !== undefined) await this.#sync.ask(one.id)
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.#dialer.stop()
    this.swarm.close()
    this.#server.close()
    await this.#host.stop()
  }

  async #begin(isMember: (peerId: string) => boolean, options: MeshNodeOptions): Promise<void> {
    const host = this.#host
    await this.handle(EXCHANGE_PROTOCOL, (stream) => this.#server.serve(stream))
    await this.handle(METADATA_PROTOCOL, (stream) =>
      serveMetadata(stream, this.#machine.trust, (bytes) => this.uplink.count(stream.peerId, 'out', 'metadata', bytes)),
    )
    if (options.enrolment !== undefined) await host.handle(JOIN_PROTOCOL, options.enrolment.serve)
    host.onConnect((peerId) => {
      if (isMember(peerId)) this.#memberUp(peerId)
    })
    host.onDisconnect((peerId) => {
      this.swarm.removePeer(peerId)
      this.#members.delete(peerId)
      if (isMember(peerId) && !this.#stopping) {
        this.#report({ type: 'peer', id: peerId, name: this.#machine.nameOf(peerId), up: false })
      }
    })
    host.onDiscover((peerId, addresses) => this.#dialer.learn(peerId, addresses))
    this.#machine.trust.onChange(() => this.#trustChanged(isMember))
    await this.#dialer.start()
  }

  #membersOnly(serve: (stream: FrameStream) => Promise<void>): (stream: FrameStream) => Promise<void> {
    return async (stream) => {
      const { peerId } = stream
      if (this.#machine.trust.view().memberById(peerId) === undefined)
        throw new MeshError('NOT_A_MEMBER', `${peerId} is no member of this site`)
      await serve(stream)
    }
  }

  #memberUp(peerId: string): void {
    this.#members.add(peerId)
    this.#report({ type: 'peer', id: peerId, name: this.#machine.nameOf(peerId), up: true })
    this.swarm.addPeer(peerId)
  }

  #trustChanged(isMember: (peerId: string) => boolean): void {
    if (this.#stopping) return
    for (const peerId of this.#host.connected()) {
      // Who has just been enrolled is connected already; who was removed must go; who is being enrolled is neither.
      if (isMember(peerId)) {
        this.#members.add(peerId)
        this.swarm.addPeer(peerId)
      } else if (this.#members.delete(peerId)) void this.#host.disconnect(peerId)
    }
    this.#server.announce()
    this.#dialer.retry()
  }

  #isWanted(peerId: string): boolean {
    if (peerId === this.#host.peerId || this.#members.has(peerId) || this.swarm.ledger.isBanned(peerId)) return false
    return this.#machine.trust.view().memberById(peerId) !== undefined
  }

  #whoIsFar(peerId: string): { readonly name: string; readonly site: string } | undefined {
    return this.#isNear(peerId) ? undefined : this.#machine.trust.view().memberById(peerId)
  }

  /** Whether a member stands in the LAN of this machine. */
  #isNear(peerId: string): boolean {
    const view = this.#machine.trust.view()
    const own = view.memberById(this.#host.peerId)
    return own === undefined || own.site === (view.memberById(peerId)?.site ?? own.site)
  }

  /** Whether nobody near has what is to be fetched, as far as can be known now. */
  #needsFar(): boolean {
    if (this.swarm.wantsFar) return true
    const others = this.#machine.trust.view().members.filter(({ id }) => id !== this.#host.peerId && this.#isNear(id))
    return others.every(({ id }) => !this.swarm.hasSession(id) && this.#dialer.hasGivenUp(id))
  }

  /** Whether each near member is connected and has said what it has. */
  #nearSettled(): boolean {
    return this.#machine.trust
      .view()
      .members.every(({ id }) => id === this.#host.peerId || !this.#isNear(id) || this.swarm.hasSession(id))
  }

  #dialRank(peerId: string): number {
    const isMaster = this.#machine.trust.view().memberById(peerId)?.role === 'master'
    return dialRank({ near: this.#isNear(peerId), isMaster })
  }

  #dialRoom(rank: number): number {
    return dialRoom(rank, {
      directs: this.#machine.trust.view().memberById(this.#host.peerId)?.role !== 'machine',
      restoringMs: this.#gradual ? Date.now() - this.#startedAt : undefined,
      starves: this.swarm.starves,
      needsFar: this.#needsFar(),
      connected: this.#members.size,
      connectedFar: [...this.#members].filter((peerId) => !this.#isNear(peerId)).length,
    })
  }

  #learnPeers(list: readonly PeerAddresses[]): void {
    for (const { id, addresses } of list) if (id !== this.#host.peerId) this.#dialer.learn(id, addresses)
  }

  #reachablePeers(): PeerAddresses[] {
    const connected = new Set(this.#host.connected())
    return this.#dialer.addresses().filter(({ id }) => connected.has(id))
  }

  #facts(): LocalFacts {
    const held = new Map(
      this.#holdings.map(({ root, size, blockSize }) => [toHex(root), { root, size, blockSize }] as const),
    )
    return {
      siteId: this.#machine.trust.siteId,
      name: this.#machine.config.name,
      metadata: this.#machine.trust.view().versions,
      addresses: this.#host.addresses().slice(0, MAX_ADDRESSES_PER_PEER),
      held: [...held.values()],
    }
  }
}

/** Nodes of one site find each other, and nobody else. */
function serviceTag(machine: Machine): string {
  return `mesh-${toHex(machine.trust.siteId).slice(0, 8)}.local`
}
