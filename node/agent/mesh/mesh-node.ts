/**
 * The room `mesh`: this machine among the members of its site.
 * `MeshNode` is the machine on the network. It is started by start-host, connects by dialer, and prefers by neighbourhood who is near.
 * metadata-sync keeps the signed metadata as new as the newest that any member has; first-news waits for that at the start.
 * conduct tells how members behave, and what each has of this machine. ask-members asks for time and news before something is signed.
 * identity-watch notices machines that run with one key; describe-run is what each says of itself; card-watch notices other network cards.
 * join and enrolment are the two sides of becoming a member by a token. A machine without one: enrol finds the master (find-master) and asks,
 * admission decides there, waiting-room and strangers bound who asks. settle is what join and enrol have in common.
 */

import {
  EXCHANGE_PROTOCOL,
  JOIN_PROTOCOL,
  MAX_ADDRESSES_PER_PEER,
  METADATA_PROTOCOL,
} from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import type { PeerAddresses, RunningNode } from '../../../protocol/message-parts.ts'
import type { SigningKey } from '../../../protocol/signed-document.ts'
import { Swarm } from '../../exchange/ask/swarm.ts'
import { checkHello, helloOf, type LocalFacts } from '../../exchange/local-facts.ts'
import type { ServeLimits } from '../../exchange/serve/serve-pace.ts'
import type { ServeFigures } from '../../exchange/serve/serve-scheduler.ts'
import { ExchangeServer } from '../../exchange/serve/server.ts'
import { UplinkFigures } from '../../exchange/uplink/uplink-figures.ts'
import { UplinkGate } from '../../exchange/uplink/uplink-gate.ts'
import { type UplinkLimit, UplinkPace } from '../../exchange/uplink/uplink-pace.ts'
import { tellable } from '../../net/announced.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import type { MeshHost } from '../../net/host.ts'
import { LinkWatch } from '../../net/link-watch.ts'
import { MTU_HINT } from '../../net/mtu-hint.ts'
import type { Holding } from '../../store/block-source.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { ServeStream } from '../machine/service-part.ts'
import { AddressBook } from './address-book.ts'
import { addressesOf } from './addresses.ts'
import { CardWatch } from './card-watch.ts'
import { Conduct } from './conduct.ts'
import { describeRun } from './describe-run.ts'
import { Dialer } from './dialer.ts'
import { IdentityWatch } from './identity-watch.ts'
import { MetadataSync, rootsOf, serveMetadata } from './metadata-sync.ts'
import { Neighbourhood } from './neighbourhood.ts'
import { startHost } from './start-host.ts'
import { Strangers } from './strangers.ts'

/** How a node is started. */
export interface MeshNodeOptions {
  readonly machine: Machine
  readonly listen?: readonly string[] | undefined
  readonly mdns?: boolean | undefined
  readonly report: (event: AgentEvent) => void
  /** How long a fetch waits for a first peer, and for somebody who holds what is missing; default: the constants. */
  readonly waitMs?: number | undefined
  /**
   * For a restore. Begins with a few connections, and makes more the longer it runs. A small restore needs only a few.
   * Listens on any port if its own is taken.
   */
  readonly gradual?: boolean | undefined
  /** The master's part in enrolment: whether a stranger may read the metadata, and how requests from an IP address are answered. */
  readonly enrolment?:
    | {
        readonly isGuest: (peerId: string) => boolean
        readonly serve: (stream: FrameStream, address: string) => Promise<void>
      }
    | undefined
}

const CLOCK = { now: () => performance.now(), local: () => new Date() }

/** This machine on the network: connected to all members it can reach, fetching, serving, and keeping metadata new. */
export class MeshNode {
  readonly swarm: Swarm
  readonly #host: MeshHost
  readonly #machine: Machine
  readonly #report: (event: AgentEvent) => void
  readonly #server: ExchangeServer
  readonly #dialer: Dialer
  readonly #book: AddressBook
  /** What becomes of the network cards of this machine. */
  readonly link: LinkWatch
  readonly #neighbourhood: Neighbourhood
  readonly #sync: MetadataSync
  /** Which machines run with one key, as far as is known here. */
  readonly identities: IdentityWatch
  /** Which machines have other network cards than the member list knows. */
  readonly cards: CardWatch
  /** How other members behave. */
  readonly conduct: Conduct
  /** Peers that are no members: the master lets them ask. */
  readonly strangers: Strangers
  readonly #running: RunningNode
  /** What has crossed the uplink. */
  readonly uplink: UplinkFigures
  readonly #gate: UplinkGate
  readonly #holdings: Holding[] = []
  /** Connected peers that are, or were, members. */
  readonly #members = new Set<string>()
  readonly #peerListeners: ((peerId: string, isUp: boolean) => void)[] = []
  /** The addresses that were reported last. */
  #told = ''
  /** What the clocks of members said when they came, less the time since this process began, which nobody sets; Unix ms. */
  readonly #clocks = new Map<string, number>()
  #stopping = false

  /** Starts libp2p and connects to members until it is stopped. Errors: PORT_TAKEN, ADDRESS_INVALID. */
  static async start(options: MeshNodeOptions): Promise<MeshNode> {
    const { machine, enrolment } = options
    let node: MeshNode | undefined
    const host = await startHost(machine, {
      ...options,
      mayMovePort: options.gradual,
      admitsStrangers: () => enrolment !== undefined && node?.strangers.hasRoom !== false,
      refuses: (peerId) => node?.swarm.ledger.isRefused(peerId) === true,
      broke: (peerId, reason) => node?.swarm.refuse(peerId, reason),
    })
    node = new MeshNode(host, options, { running: await describeRun(machine), key: await machine.key() })
    await node.#begin(enrolment)
    return node
  }

  private constructor(host: MeshHost, options: MeshNodeOptions, own: { running: RunningNode; key: SigningKey }) {
    const { machine, report } = options
    const { running, key } = own
    this.#book = new AddressBook(key)
    this.#running = running
    this.#host = host
    this.#machine = machine
    this.#report = report
    this.#neighbourhood = new Neighbourhood(() => machine.trust.view(), host.peerId)
    this.uplink = new UplinkFigures((peerId) => this.#neighbourhood.whoIsFar(peerId))
    this.#gate = new UplinkGate({
      siteOf: (peerId) => this.#neighbourhood.whoIsFar(peerId)?.site,
      figures: this.uplink,
    })
    this.#sync = new MetadataSync({
      trust: machine.trust,
      open: (peerId, protocol) => host.open(peerId, protocol),
      warn: (text) => report({ type: 'warning', text }),
      nameOf: (peerId) => machine.nameOf(peerId),
      received: (peerId, bytes) => this.uplink.count(peerId, 'in', 'metadata', bytes),
    })
    this.identities = new IdentityWatch({
      self: () => ({ ...running, addresses: this.addresses() }),
      openAll: (peerId) => host.openAll(peerId, EXCHANGE_PROTOCOL),
      hello: (twins) => helloOf({ ...this.#facts(), twins }),
      nameOf: (peerId) => machine.nameOf(peerId),
      warn: (text) => report({ type: 'warning', text }),
    })
    this.cards = new CardWatch((text) => report({ type: 'warning', text }))
    this.link = new LinkWatch(host.network, { report: (type, text) => report({ type, text }) })
    this.strangers = new Strangers({
      isStranger: (peerId) => !machine.isMember(peerId) && !machine.isRemoved(peerId),
      disconnect: (peerId) => void host.disconnect(peerId),
    })
    this.swarm = this.#makeSwarm(options.waitMs)
    this.#server = this.#makeServer()
    this.conduct = new Conduct({
      machine,
      ledger: this.swarm.ledger,
      clients: () => this.#server.clients(),
      connectionsTo: (peerId) => host.connectionsTo(peerId),
      report,
    })
    this.#dialer = this.#makeDialer(options.gradual === true)
  }

  /** What fetches from peers. */
  #makeSwarm(waitMs: number | undefined): Swarm {
    return new Swarm({
      self: this.peerId,
      open: (peerId) => this.open(peerId, EXCHANGE_PROTOCOL),
      local: () => this.#facts(),
      imageOf: (root) => this.#machine.trust.view().releaseByRoot(root),
      places: {
        isFar: (peerId) => !this.#neighbourhood.isNear(peerId),
        nearSettled: () => this.#neighbourhood.everyNear((peerId) => this.swarm.hasSession(peerId)),
        isReluctant: (peerId) => this.#neighbourhood.isMaster(peerId),
      },
      events: {
        onReceived: (peerId, level, bytes) => this.uplink.count(peerId, 'in', level === 0 ? 'blocks' : 'pages', bytes),
        onWanting: () => this.#dialer.look(),
        onVersions: (peerId, versions) => {
          // It said hello: nothing more is to be expected of the network.
          this.link.works()
          void this.#sync.heard(peerId, versions)
        },
        onPeers: (_, list) => {
          // A new member that is not known as one yet dials others itself.
          const isKnown = (id: string): boolean => id !== this.peerId && this.#machine.isMember(id)
          for (const { id, addresses } of this.#book.hearAll(list, isKnown)) this.#learn(id, addresses)
        },
        onBan: (peerId, reason, until) => {
          void this.#host.disconnect(peerId)
          this.conduct.tellBan(peerId, reason, until)
        },
      },
      // Who said how long to wait is not made to wait longer.
      network: { isComing: () => waitMs === undefined && this.link.isComing(), fault: () => this.#fault() },
      ...(waitMs === undefined ? {} : { deadlines: { peerWaitMs: waitMs, holderWaitMs: waitMs } }),
    })
  }

  /** What answers peers that fetch. */
  #makeServer(): ExchangeServer {
    return new ExchangeServer({
      local: () => this.#facts(),
      holdings: () => this.#holdings,
      peers: () => this.#reachablePeers(),
      gate: this.#gate,
      onFetching: (peerId, message) => this.swarm.heardFetching(peerId, message),
      onHello: (peerId, hello) => {
        // What a peer says of itself it need not sign. What it signs is for others.
        const isNew = hello.record !== undefined && this.#book.hear(peerId, hello.record) !== undefined
        if (this.#learn(peerId, hello.addresses) || isNew) this.#server.peersChanged()
        this.identities.told(peerId, hello)
        this.#sawCards(peerId, hello.running)
        if (hello.clock !== undefined) this.#clocks.set(peerId, hello.clock - performance.now())
        void this.#sync.heard(peerId, hello.metadata)
      },
    })
  }

  /** What connects to members. `gradual`: to few at first, and to more as time goes by. */
  #makeDialer(gradual: boolean): Dialer {
    const startedAt = performance.now()
    return new Dialer({
      shelf: addressesOf(this.#machine.home),
      connect: (peerId, addresses, worked) => this.#host.connect(peerId, addresses, { worked }),
      isWanted: (peerId) => this.#isWanted(peerId),
      rank: (peerId) => this.#neighbourhood.rank(peerId),
      room: (rank) =>
        this.#neighbourhood.room(rank, {
          connected: this.#members,
          restoringMs: gradual ? performance.now() - startedAt : undefined,
          starves: this.swarm.starves,
          needsFar: this.#needsFar(),
        }),
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

  /** How far the clocks of members that came are ahead of `now` (Unix ms), in milliseconds; negative: behind. */
  clockOffsets(now: number): number[] {
    return [...this.#clocks.values()].map((clock) => clock + performance.now() - now)
  }

  /** Calls back when a member was connected, or is connected no longer. */
  onPeer(listener: (peerId: string, isUp: boolean) => void): void {
    this.#peerListeners.push(listener)
  }

  /** Serves another protocol to members. */
  async handle(protocol: string, serve: ServeStream): Promise<void> {
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

  /** That two machines sign for the site, if a peer has proven it; METADATA_FORKED. */
  get fork(): MeshError | undefined {
    return this.#sync.fork
  }

  /** What the other machine has signed has been signed over. */
  forkSettled(): void {
    this.#sync.fork = undefined
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
    this.strangers.stop()
    this.identities.stop()
    this.#sync.stop()
    this.swarm.close()
    this.#server.close()
    await this.#host.stop()
    await this.conduct.remember()
  }

  async #begin(enrolment: MeshNodeOptions['enrolment']): Promise<void> {
    const host = this.#host
    const { trust } = this.#machine
    const serve = this.#membersOnly((stream) => this.#server.serve(stream))
    await host.handle(EXCHANGE_PROTOCOL, (stream) =>
      this.#machine.isRemoved(stream.peerId) ? this.#sendAway(stream) : serve(stream),
    )
    const mayRead = (peerId: string): boolean => this.#machine.isRemoved(peerId) || enrolment?.isGuest(peerId) === true
    const metadata: ServeStream = (stream) =>
      serveMetadata(stream, trust, (bytes) => this.uplink.count(stream.peerId, 'out', 'metadata', bytes))
    await host.handle(METADATA_PROTOCOL, (stream) => {
      if (mayRead(stream.peerId)) return metadata(stream)
      // By them a machine that has no token finds out whether this is the master of its site.
      const isStranger = enrolment !== undefined && !this.#machine.isMember(stream.peerId)
      return isStranger ? serveMetadata(stream, rootsOf(trust)) : this.#membersOnly(metadata)(stream)
    })
    if (enrolment !== undefined)
      await host.handle(JOIN_PROTOCOL, (stream) => enrolment.serve(stream, host.addressOf(stream.peerId)))
    host.onConnect((peerId) => {
      this.strangers.connected(peerId, host.addressOf(peerId))
      if (this.#machine.isMember(peerId)) this.#memberUp(peerId)
    })
    host.onDisconnect((peerId) => {
      this.strangers.gone(peerId)
      this.swarm.removePeer(peerId)
      this.#sync.gone(peerId)
      this.#members.delete(peerId)
      if (this.#machine.isMember(peerId) && !this.#stopping) this.#tellPeer(peerId, false)
    })
    host.onConnection((peerId, connections) => {
      if (this.#machine.isMember(peerId)) this.identities.connected(peerId, connections)
      else this.strangers.connection(peerId, connections)
    })
    host.onDiscover((peerId, addresses) => {
      if (peerId === this.peerId) this.identities.seen(addresses, this.addresses())
      // A stranger that the gate admits is not dialled, and anybody can make ids up.
      else if (this.#machine.isMember(peerId)) this.#dialer.hear(peerId, this.#host.dialable(addresses))
    })
    trust.onChange(() => this.#trustChanged())
    host.network.onChange(() => this.#networkChanged())
    this.#told = this.addresses().join()
    this.cards.seen(this.peerId, trust.view().memberById(this.peerId), this.#running.mac, true)
    await this.conduct.recall()
    await this.#dialer.start()
  }

  /** Who gives orders powers machines on, and wants to know. */
  #sawCards(peerId: string, running: RunningNode | undefined): void {
    const { config, trust } = this.#machine
    if (running !== undefined && this.#machine.isOperator(config.id))
      this.cards.seen(peerId, trust.view().memberById(peerId), running.mac)
  }

  #membersOnly(serve: ServeStream): ServeStream {
    return async (stream) => {
      const { peerId } = stream
      if (!this.#machine.isMember(peerId)) throw new MeshError('NOT_A_MEMBER', `${peerId} is no member of this site`)
      await serve(stream)
    }
  }

  /** A machine that was removed learns from the hello that there is newer metadata, and from the metadata that it was removed. */
  async #sendAway(stream: FrameStream): Promise<void> {
    for await (const message of stream.messages()) {
      const facts = this.#facts()
      checkHello(message, stream.peerId, facts)
      await stream.send(helloOf({ ...facts, held: [], addresses: [], record: undefined }))
      return
    }
  }

  #memberUp(peerId: string): void {
    this.#members.add(peerId)
    this.#tellPeer(peerId, true)
    this.swarm.addPeer(peerId)
    this.#server.peersChanged()
  }

  #tellPeer(peerId: string, isUp: boolean): void {
    this.#report({ type: 'peer', id: peerId, name: this.#machine.nameOf(peerId), up: isUp })
    for (const listener of this.#peerListeners) listener(peerId, isUp)
  }

  #trustChanged(): void {
    if (this.#stopping) return
    for (const peerId of this.#host.connected()) {
      // A machine that was enrolled just now is connected already. One that was removed must go. One that is being enrolled is neither.
      if (this.#machine.isMember(peerId)) {
        if (!this.#members.has(peerId)) this.#memberUp(peerId)
      } else if (this.#members.delete(peerId)) void this.#host.disconnect(peerId)
    }
    this.#book.keep((peerId) => this.#machine.isMember(peerId))
    this.swarm.imagesChanged()
    this.#server.announce()
    this.#dialer.retry()
  }

  /** Why nothing comes from anybody, as far as can be told here. */
  #fault(): string | undefined {
    const records = this.swarm.ledger.all()
    const silent = records.find(({ offences, bytes }) => (offences.silent ?? 0) > 0 && bytes === 0)
    const any = records.some(({ bytes }) => bytes > 0)
    const mtu =
      silent === undefined || any
        ? undefined
        : `${this.#machine.nameOf(silent.id)} answers, and sends nothing of the image; ${MTU_HINT}`
    return this.link.fault() ?? mtu
  }

  /** Network cards came, went, or have other addresses: whoever could not be reached may be reached now. */
  #networkChanged(): void {
    if (this.#stopping) return
    const addresses = this.addresses()
    if (addresses.join() !== this.#told) this.#report({ type: 'listening', peerId: this.peerId, addresses })
    this.#told = addresses.join()
    this.#dialer.retry()
  }

  #isWanted(peerId: string): boolean {
    if (peerId === this.#host.peerId || this.#members.has(peerId) || this.swarm.ledger.isBanned(peerId)) return false
    return this.#machine.isMember(peerId)
  }

  /** Whether nobody near has what is to be fetched, as far as can be known now. */
  #needsFar(): boolean {
    if (this.swarm.wantsFar) return true
    return this.#neighbourhood.everyNear((peerId) => !this.swarm.hasSession(peerId) && this.#dialer.hasGivenUp(peerId))
  }

  #learn(peerId: string, addresses: readonly string[]): boolean {
    return this.#dialer.learn(peerId, this.#host.dialable(addresses))
  }

  #reachablePeers(): PeerAddresses[] {
    const connected = new Set(this.#host.connected())
    const known = this.#dialer.addresses().filter(({ id }) => connected.has(id))
    return known.map(({ id, addresses }) => this.#book.withRecord({ id, addresses: tellable(addresses) }))
  }

  #facts(): LocalFacts {
    const held = new Map(
      this.#holdings.map(({ root, size, blockSize }) => [toHex(root), { root, size, blockSize }] as const),
    )
    const addresses = this.#host.addresses().slice(0, MAX_ADDRESSES_PER_PEER)
    return {
      siteId: this.#machine.trust.siteId,
      name: this.#machine.config.name,
      metadata: { ...this.#machine.trust.view().versions, head: this.#machine.trust.view().head },
      addresses,
      record: this.#book.own(addresses),
      held: [...held.values()],
      clock: Date.now(),
      running: this.#running,
    }
  }
}
