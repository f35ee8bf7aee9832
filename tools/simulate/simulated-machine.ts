import { BlockPicker } from '../../node/exchange/ask/block-picker.ts'
import { FAR_PROGRESS_DEADLINE_MS, FETCH_TICK_MS, PROGRESS_DEADLINE_MS } from '../../node/exchange/ask/limits.ts'
import { CLAIM_DELAY_MS, FAR_QUIET_MS } from '../../node/exchange/uplink/limits.ts'
import { dialOrder, dialRank, dialRoom } from '../../node/net/dial-rule.ts'
import { Bitmap } from '../../protocol/bitmap.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'
import type { Random } from '../lab/random.ts'
import type { EventQueue } from './event-queue.ts'
import type { LabFacts, MachineFacts } from './lab-facts.ts'

/** Milliseconds of a peer's delivery that are asked of it at a time; and least and most blocks of that. */
const WINDOW_MS = 300
const WINDOW_MIN = 2
const WINDOW_START = 4
const WINDOW_MAX = 64
/** Blocks that are asked of all peers together. */
const IN_FLIGHT_MAX = 128

/** What a simulated machine sees of its lab. */
interface Surroundings {
  readonly events: EventQueue
  readonly facts: LabFacts
  readonly random: Random
  /** When a block that is sent at `at` has crossed the uplink of a site. */
  crosses(site: string, at: number): number
  /** The machines that are connected to one another. */
  online(): SimulatedMachine[]
}

/** One machine's connection to another, from the side that asks. */
interface Link {
  readonly to: SimulatedMachine
  asked: number
  window: number
  received: number
  bytesPerMs: number | undefined
  progressAt: number
  /** Whether the peer has delivered nothing for too long. It is not asked until it does. */
  stalled: boolean
}

/** A machine of a simulated lab: its link, its queue of requests, and the real picker. */
export class SimulatedMachine {
  readonly facts: MachineFacts
  readonly name: string
  /** Verified blocks; and blocks that others may ask for. */
  readonly have: Bitmap
  readonly offered: Bitmap
  online = false
  doneAt: number | undefined
  sentBlocks = 0
  /** Blocks that came although they were here already, or that were wrong. */
  uselessBlocks = 0
  receivedBlocks = 0
  readonly #lab: Surroundings
  #picker: BlockPicker
  readonly #links = new Map<SimulatedMachine, Link>()
  readonly #banned = new Set<SimulatedMachine>()
  #inFlight = 0
  /** Requests of each client. Clients are served in turn. */
  readonly #requests = new Map<SimulatedMachine, number[]>()
  #sending = false
  #downFreeAt = 0
  #unoffered: number[] = []
  /** Blocks that this machine has asked for over the uplink. The others of its site know it a moment later. */
  readonly #claims = new Set<number>()
  #telling = false
  /** When the machine was last connected to another machine of its site. */
  #metAt = Number.NEGATIVE_INFINITY

  constructor(facts: MachineFacts, lab: Surroundings) {
    this.facts = facts
    this.name = facts.name
    this.#lab = lab
    this.have = facts.have.copy()
    this.offered = facts.have.copy()
    this.#picker = this.#newPicker()
  }

  /** Whether nothing more is expected of this machine. */
  get isOver(): boolean {
    return this.doneAt !== undefined || this.isBad
  }

  get isBad(): boolean {
    return this.facts.lies === true || this.facts.stallsAtMs !== undefined
  }

  get #stalls(): boolean {
    return this.#lab.events.now >= (this.facts.stallsAtMs ?? Number.POSITIVE_INFINITY)
  }

  start(): void {
    this.#comes()
    const { away } = this.facts
    if (away === undefined) return
    this.#lab.events.after(away.fromMs, () => this.#goes())
    this.#lab.events.after(away.untilMs, () => this.#comes())
  }

  tick(): void {
    if (this.#stalls) return
    const { blockBytes } = this.#lab.facts
    for (const link of [...this.#links.values()]) {
      const rate = (link.received * blockBytes) / FETCH_TICK_MS
      if (link.asked > 0 || link.received > 0) {
        link.bytesPerMs = link.bytesPerMs === undefined ? rate : (link.bytesPerMs + rate) / 2
        const fits = Math.ceil((link.bytesPerMs * WINDOW_MS) / blockBytes)
        link.window = Math.min(WINDOW_MAX, Math.max(WINDOW_MIN, fits))
        if (!link.stalled) this.#picker.setSpeed(link.to.name, link.bytesPerMs * 1000)
      }
      link.received = 0
      const deadlineMs = this.#isFar(link.to) ? FAR_PROGRESS_DEADLINE_MS : PROGRESS_DEADLINE_MS
      if (link.asked > 0 && this.#lab.events.now - link.progressAt >= deadlineMs) this.#stall(link)
    }
    this.#pumpAll()
  }

  #newPicker(): BlockPicker {
    const { blocks, blockBytes } = this.#lab.facts
    const wanted = new Bitmap(blocks)
    for (let i = this.have.nextClear(0); i !== -1; i = this.have.nextClear(i + 1)) wanted.set(i)
    return new BlockPicker({ wanted, itemBytes: blockBytes, self: this.name, random: () => this.#lab.random.next() })
  }

  #comes(): void {
    this.online = true
    this.have.clearRange(0, this.have.length)
    for (const i of this.offered.values()) this.have.set(i)
    this.#picker = this.#newPicker()
    this.#noteDone()
    this.#dial()
    this.#lab.events.after(0, () => this.#pumpAll())
  }

  /**
   * Connects to the machines that the real rule says are worth dialling. The dialled machine gets a connection, too.
   */
  #dial(): void {
    const others = this.#lab.online().filter((other) => other !== this && !this.#links.has(other))
    const rankOf = (other: SimulatedMachine): number =>
      dialRank({ near: !this.#isFar(other), isMaster: other.facts.isMaster })
    const { random } = this.#lab
    for (const other of dialOrder(
      others,
      rankOf,
      (rank) => this.#room(rank) > 0,
      () => random.next(),
    )) {
      this.#connect(other)
      other.#connect(this)
    }
    // A machine that now has far peers says so.
    this.#tellClaims()
  }

  #room(rank: number): number {
    const connectedFar = [...this.#links.keys()].filter((other) => this.#isFar(other)).length
    const connected = this.#links.size
    return dialRoom(rank, { directs: false, starves: false, needsFar: true, connected, connectedFar })
  }

  #goes(): void {
    this.online = false
    for (const other of this.#lab.online()) other.#disconnect(this)
    this.#links.clear()
    this.#requests.clear()
    this.#inFlight = 0
    this.#unoffered = []
    this.#claims.clear()
  }

  #isFar(other: SimulatedMachine): boolean {
    return other.facts.site !== this.facts.site
  }

  #connect(to: SimulatedMachine): void {
    if (this.#links.has(to) || this.#banned.has(to)) return
    const progressAt = this.#lab.events.now
    if (!this.#isFar(to)) this.#metAt = progressAt
    this.#links.set(to, {
      to,
      asked: 0,
      window: WINDOW_START,
      received: 0,
      bytesPerMs: undefined,
      progressAt,
      stalled: false,
    })
    this.#introduce(to)
    this.#lab.events.after(this.#lab.facts.latencyMs, () => this.#pumpAll())
  }

  #introduce(to: SimulatedMachine): void {
    const place = { near: !this.#isFar(to), reluctant: to.facts.reluctant === true }
    this.#picker.addPeer(to.name, { have: to.offered, ...place }, this.#lab.events.now)
    if (!this.#isFar(to) && to.doneAt === undefined && [...to.#links.keys()].some((peer) => to.#isFar(peer))) {
      this.#picker.setFetchesFromFar(to.name, true)
      this.#hearsClaims(to)
    }
  }

  /** Gives up a peer that delivers nothing: its blocks are asked of others. A block that comes after all is welcome. */
  #stall(link: Link): void {
    link.stalled = true
    this.#inFlight -= link.asked
    link.asked = 0
    // The peer may go on later, and still fetches what it has claimed.
    this.#picker.suspendPeer(link.to.name, this.#lab.events.now)
  }

  #drop(peer: SimulatedMachine): void {
    for (const index of [...this.#claims])
      if (this.#picker.askersOf(index).includes(peer.name)) this.#claims.delete(index)
    this.#picker.removePeer(peer.name)
    this.#picker.setFetchesFromFar(peer.name, false)
  }

  /** Claims of one moment are told together. */
  #tellClaims(): void {
    if (this.#telling) return
    this.#telling = true
    this.#lab.events.after(CLAIM_DELAY_MS + this.#lab.facts.latencyMs, () => {
      this.#telling = false
      for (const other of this.#lab.online()) if (other !== this && !this.#isFar(other)) other.#hearsClaims(this)
    })
  }

  #hearsClaims(from: SimulatedMachine): void {
    if (!from.online || !this.#links.has(from)) return
    this.#picker.setFetchesFromFar(from.name, from.doneAt === undefined)
    const claimed = RangeSet.from([...from.#claims].map((i): Run => [i, i + 1]))
    this.#picker.setClaims(from.name, claimed, this.#lab.events.now)
    if (from.name < this.name) this.#yield(from.#claims)
  }

  /** Two machines have asked for a block at the same moment. One takes its requests back, if they are still open. */
  #yield(claimed: ReadonlySet<number>): void {
    for (const index of this.#claims) {
      if (!claimed.has(index) || this.have.has(index)) continue
      const askers = this.#picker.askersOf(index)
      for (const link of this.#links.values()) {
        if (!this.#isFar(link.to) || !askers.includes(link.to.name)) continue
        this.#picker.unasked(index, link.to.name)
        this.#cancel(link, index)
        this.#claims.delete(index)
      }
    }
  }

  #disconnect(to: SimulatedMachine): void {
    const link = this.#links.get(to)
    if (link === undefined) return
    this.#links.delete(to)
    this.#requests.delete(to)
    to.#requests.delete(this)
    this.#inFlight -= link.asked
    this.#drop(to)
    this.#dial()
    this.#lab.events.after(0, () => this.#pumpAll())
  }

  /** Notes that another machine offers more blocks. */
  #hears(from: SimulatedMachine, ranges: readonly Run[]): void {
    const link = this.#links.get(from)
    if (link === undefined || link.stalled) return
    this.#picker.gained(from.name, ranges, this.#lab.events.now)
    this.#pump(link)
  }

  /**
   * Asks each peer for one block in turn. It begins with another peer each time, so that not all machines ask the same
   * peer first.
   */
  #pumpAll(): void {
    if (!this.online) return
    const links = [...this.#links.values()]
    const start = this.#lab.random.below(links.length)
    let asking = [...links.slice(start), ...links.slice(0, start)]
    while (asking.length > 0) asking = asking.filter((link) => this.#askOne(link))
  }

  #pump(link: Link): void {
    while (this.#askOne(link));
  }

  /** Asks a peer for one block. False if the peer is not to be asked for more now. */
  #askOne(link: Link): boolean {
    // The far side waits like this before its first request.
    if (this.#isFar(link.to) && this.#lab.events.now - this.#metAt < FAR_QUIET_MS) return false
    if (this.#stalls || link.stalled || link.asked >= link.window || this.#inFlight >= IN_FLIGHT_MAX) return false
    if (this.#picker.pending + this.#picker.asked === 0) return false
    const { events, facts } = this.#lab
    let index = this.#picker.pick(link.to.name, events.now)
    if (index === -1) index = this.#picker.duplicate(link.to.name, events.now)
    if (index === -1) return false
    this.#picker.markAsked(index, link.to.name, events.now)
    if (link.asked === 0) link.progressAt = events.now
    link.asked++
    this.#inFlight++
    if (this.#isFar(link.to)) {
      this.#claims.add(index)
      this.#tellClaims()
    }
    events.after(facts.latencyMs, () => link.to.#isAsked(this, index))
    return true
  }

  #isAsked(by: SimulatedMachine, index: number): void {
    if (!this.online || this.#stalls) return
    const queue = this.#requests.get(by)
    if (queue === undefined) this.#requests.set(by, [index])
    else queue.push(index)
    if (!this.#sending) this.#send()
  }

  /** Sends one block. Clients take turns. */
  #send(): void {
    const next = this.#requests.entries().next().value
    this.#sending = next !== undefined && !this.#stalls
    if (next === undefined || this.#stalls) return
    const [to, queue] = next
    const index = queue.shift()!
    this.#requests.delete(to)
    if (queue.length > 0) this.#requests.set(to, queue)
    const { events, facts } = this.#lab
    this.sentBlocks++
    const sentAfter = facts.blockBytes / this.facts.bytesPerMs
    events.after(sentAfter, () => this.#send())
    const crossed = to.#isFar(this) ? this.#lab.crosses(to.facts.site, events.now + sentAfter) - events.now : sentAfter
    events.after(crossed + facts.latencyMs, () => to.#arrives(this, index))
  }

  /** Takes a block whose last byte could be here now. It has to wait for the blocks that came before it. */
  #arrives(from: SimulatedMachine, index: number): void {
    const { events, facts } = this.#lab
    this.#downFreeAt = Math.max(this.#downFreeAt + facts.blockBytes / this.facts.bytesPerMs, events.now)
    events.after(this.#downFreeAt - events.now, () => this.#receive(from, index))
  }

  #receive(from: SimulatedMachine, index: number): void {
    const link = this.#links.get(from)
    if (link === undefined || !this.online || this.#stalls) return
    this.receivedBlocks++
    link.received++
    link.progressAt = this.#lab.events.now
    if (link.stalled) {
      link.stalled = false
      this.#introduce(from)
    }
    const wrong = from.facts.lies === true
    if (wrong || this.have.has(index)) this.uselessBlocks++
    if (wrong) {
      this.#banned.add(from)
      this.#disconnect(from)
      return
    }
    if (this.#picker.askersOf(index).includes(from.name)) {
      link.asked--
      this.#inFlight--
    }
    const others = new Set(this.#picker.delivered(index, from.name))
    for (const other of this.#links.values()) if (others.has(other.to.name)) this.#cancel(other, index)
    if (this.have.set(index)) this.#offerSoon(index)
    this.#pump(link)
  }

  #cancel(link: Link, index: number): void {
    link.asked--
    this.#inFlight--
    this.#lab.events.after(this.#lab.facts.latencyMs, () => {
      const queue = link.to.#requests.get(this)
      const at = queue?.indexOf(index) ?? -1
      if (queue === undefined || at === -1) return
      queue.splice(at, 1)
      if (queue.length === 0) link.to.#requests.delete(this)
    })
  }

  /** Offers a block soon, together with the other blocks that come within one batch. */
  #offerSoon(index: number): void {
    this.#unoffered.push(index)
    if (this.#unoffered.length > 1) return
    const { offerMs, latencyMs } = this.#lab.facts
    this.#lab.events.after(offerMs, () => {
      const batch = this.#unoffered
      this.#unoffered = []
      for (const i of batch) this.offered.set(i)
      this.#noteDone()
      const ranges = [...RangeSet.from(batch.map((i): Run => [i, i + 1])).runs()]
      this.#lab.events.after(latencyMs, () => {
        for (const other of this.#lab.online()) if (other !== this) other.#hears(this, ranges)
      })
    })
  }

  #noteDone(): void {
    if (this.offered.count === this.offered.length) this.doneAt ??= this.#lab.events.now
  }
}
