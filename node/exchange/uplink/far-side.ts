import { toHex } from '../../../protocol/digest.ts'
import type { Message } from '../../../protocol/messages.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { HAND_OVER_MS } from '../limits.ts'
import {
  CLAIM_DELAY_MS,
  CLAIM_KEEP_MS,
  EXPECTED_MS,
  FAR_PATIENCE_MAX_MS,
  FAR_PATIENCE_MS,
  FAR_QUIET_MS,
  FETCHING_BEAT_MS,
  FETCHING_SILENT_MS,
} from './limits.ts'
import type { UplinkPace } from './uplink-pace.ts'

/** What the far side knows of one fetch. */
export interface FarFetch {
  /** Root of the image, hexadecimal. */
  readonly root: string
  readonly request: { readonly root: Uint8Array; readonly level: number; readonly together?: boolean }
  readonly picker: {
    hasPeer(peerId: string): boolean
    setFetchesFromFar(peerId: string, fetches: boolean): void
    setClaims(peerId: string, claimed: RangeSet, at: number): void
  }
  onClaim: () => void
  /** Indices of blocks that came over the uplink and are not known to others yet. */
  arrived(): number[]
  claims(): RangeSet
  yieldClaims(claimed: RangeSet): void
  forgetClaims(before: number): void
}

/** What the far side knows of one connected peer. */
export interface FarSession {
  readonly peerId: string
  held(root: string): { readonly count: number; readonly length: number; has(index: number): boolean } | undefined
  tellFetching(message: FetchingMessage): void
}

export interface FarSideOptions {
  /** Peer id of this machine. */
  readonly self: string
  /** Whether a peer is behind the uplink. */
  readonly isFar: (peerId: string) => boolean
  /** Whether every other machine of the site is connected. */
  readonly nearSettled: () => boolean
  readonly sessions: () => readonly FarSession[]
  readonly jobs: ReadonlySet<FarFetch>
  readonly now: () => number
}

export type FetchingMessage = Extract<Message, { type: 'fetching' }>

/** What a machine of the site last said of an image that it fetches over the uplink. */
interface Statement {
  readonly level: number
  readonly claimed: RangeSet
  readonly at: number
}

/**
 * The part of fetching that has to do with the uplink: machines of one site tell one another that they fetch an image over it,
 * and what they have asked for there, so that it crosses once (docs/decisions/0016-uplink.md).
 */
export class FarSide {
  readonly #options: FarSideOptions
  /** By machine of the site, and by root in hexadecimal. */
  readonly #fellows = new Map<string, Map<string, Statement>>()
  /** Near peers that have not said yet that they fetch the same, and have their share all the same until some time. */
  readonly #expected = new Map<FarFetch, { readonly peers: Set<string>; readonly until: number }>()
  /** Fetches that this machine has told the others of, and when last. */
  readonly #told = new Map<FarFetch, number>()
  /** Fetches that have ended, until the others are told. */
  readonly #leaving = new Map<FarFetch, NodeJS.Timeout>()
  #wantedSince: number | undefined
  #metAt = Number.NEGATIVE_INFINITY
  #telling: NodeJS.Timeout | undefined
  /** What this machine may ask for over the uplink; undefined: all it wants. */
  pace: UplinkPace | undefined

  constructor(options: FarSideOptions) {
    this.#options = options
  }

  isFar(peerId: string): boolean {
    return this.#options.isFar(peerId)
  }

  /** Whether far peers have something to do with what is being fetched. */
  get isWanted(): boolean {
    return this.#options.jobs.size > 0 && this.#wantedSince !== undefined
  }

  /** How many machines of the site fetch over the uplink, this one included. */
  get fetchers(): number {
    return 1 + [...this.#fellows.values()].filter((roots) => roots.size > 0).length
  }

  /** A fetch begins: what the others have said of it holds. */
  begin(job: FarFetch): void {
    job.onClaim = () => this.#tellSoon()
    if (job.request.together === true) this.#expectOthers(job)
    for (const [peerId, roots] of this.#fellows) this.#apply(job, peerId, roots.get(job.root))
  }

  /** What the others were told holds for a while: they take what came last from here, and the next level may follow. */
  ended(job: FarFetch): void {
    this.#expected.delete(job)
    if (!this.#told.delete(job)) return
    const timer = setTimeout(() => this.#leave(job), HAND_OVER_MS).unref()
    this.#leaving.set(job, timer)
  }

  /**
   * Whether another machine that fetches over the uplink still needs from here what came that way last: if this machine went
   * now, it would cross once more.
   */
  get isNeeded(): boolean {
    const sessions = this.#near()
    for (const { root, arrived } of this.#leaving.keys()) {
      const waiting = sessions.filter(({ peerId }) => this.#fellows.get(peerId)?.get(root)?.level === 0)
      const held = waiting.map((session) => session.held(root))
      for (const index of arrived()) if (held.some((theirs) => theirs?.has(index) !== true)) return true
    }
    return false
  }

  /** A near peer was met: tells it what is fetched over the uplink. */
  met(session: FarSession): void {
    this.#metAt = this.#options.now()
    for (const job of this.#told.keys()) this.#send([session], job, false)
  }

  /** A machine is gone: what it had claimed is for others to fetch. */
  gone(peerId: string): void {
    for (const { peers } of this.#expected.values()) peers.delete(peerId)
    this.#fellows.delete(peerId)
    for (const job of this.#options.jobs) this.#apply(job, peerId, undefined)
  }

  heard(peerId: string, { root, level, claimed, over }: FetchingMessage): void {
    if (this.isFar(peerId)) return
    const roots = this.#fellows.get(peerId) ?? new Map<string, Statement>()
    this.#fellows.set(peerId, roots)
    const key = toHex(root)
    if (over) roots.delete(key)
    else roots.set(key, { level, claimed, at: this.#options.now() })
    for (const job of this.#options.jobs) if (job.root === key) this.#apply(job, peerId, roots.get(key))
  }

  /**
   * Whether far peers may be asked: not before it is clear what the machines nearby have, and fetch. That takes a moment at
   * the beginning.
   */
  mayAsk(): boolean {
    const { nearSettled } = this.#options
    const now = this.#options.now()
    if (this.#wantedSince === undefined || (this.pace?.waitMs(this.fetchers) ?? 0) > 0) return false
    const waitedMs = now - this.#wantedSince
    if (waitedMs >= FAR_PATIENCE_MAX_MS) return true
    const quietMs = Math.min(waitedMs, now - this.#metAt)
    return quietMs >= (nearSettled() ? FAR_QUIET_MS : FAR_PATIENCE_MS)
  }

  /** Tells the others that this machine goes on, and no longer believes those who have not said so for too long. */
  tick(): void {
    const now = this.#options.now()
    for (const [peerId, roots] of this.#fellows)
      for (const [root, { at }] of roots) {
        if (now - at < FETCHING_SILENT_MS) continue
        roots.delete(root)
        for (const job of this.#options.jobs) if (job.root === root) this.#apply(job, peerId, undefined)
      }
    for (const [job, { until }] of this.#expected) if (now >= until) this.#expectNobody(job)
    for (const job of this.#options.jobs) {
      job.forgetClaims(now - CLAIM_KEEP_MS)
      const fetches = this.#hasFarPeer(job)
      if (fetches) this.#wantedSince ??= now
      const toldAt = this.#told.get(job)
      if (fetches && (toldAt === undefined || now - toldAt >= FETCHING_BEAT_MS)) this.#tell(job)
      else if (!fetches && toldAt !== undefined) {
        this.#told.delete(job)
        this.#leave(job)
      }
    }
  }

  /** A fetch has a peer more, or fewer. */
  noticed(job: FarFetch): void {
    if (this.#told.has(job) || !this.#hasFarPeer(job)) return
    this.#wantedSince ??= this.#options.now()
    this.#tell(job)
  }

  /** No far peer may be asked for anything, for longer than one waits. */
  get isClosed(): boolean {
    return this.pace?.bytesPerSecond === 0
  }

  close(): void {
    clearTimeout(this.#telling)
    for (const timer of this.#leaving.values()) clearTimeout(timer)
  }

  /** So they do not ask for the same as this machine before they have heard of each other. */
  #expectOthers(job: FarFetch): void {
    const peers = new Set<string>()
    for (const session of this.#near()) {
      const held = session.held(job.root)
      // Whoever offers any of it has its pages.
      if (held === undefined || (job.request.level === 0 && held.count < held.length)) peers.add(session.peerId)
    }
    this.#expected.set(job, { peers, until: this.#options.now() + EXPECTED_MS })
    for (const id of peers) job.picker.setFetchesFromFar(id, true)
  }

  /** Who has not said by now that it fetches does not. */
  #expectNobody(job: FarFetch): void {
    const { peers } = this.#expected.get(job)!
    this.#expected.delete(job)
    for (const id of peers) this.#apply(job, id, this.#fellows.get(id)?.get(job.root))
  }

  #leave(job: FarFetch): void {
    this.#leaving.delete(job)
    if (!this.#isTold(job.root)) this.#send(this.#near(), job, true)
  }

  #hasFarPeer(job: FarFetch): boolean {
    return this.#options
      .sessions()
      .some(({ peerId }) => !this.isClosed && this.isFar(peerId) && job.picker.hasPeer(peerId))
  }

  #isTold(root: string): boolean {
    for (const job of this.#told.keys()) if (job.root === root) return true
    return false
  }

  #apply(job: FarFetch, peerId: string, statement: Statement | undefined): void {
    // Whoever fetches pages fetches no blocks yet; the tree is one machine's, whatever level that is at.
    const fetches = statement !== undefined && (statement.level === 0) === (job.request.level === 0)
    // Whoever is still at the pages will come to the blocks.
    if (fetches || this.#expected.get(job)?.peers.has(peerId) !== true) job.picker.setFetchesFromFar(peerId, fetches)
    if (!fetches || job.request.level > 0) return
    job.picker.setClaims(peerId, statement.claimed, statement.at)
    // Both have asked at the same moment: both know who of them goes on.
    if (peerId < this.#options.self) job.yieldClaims(statement.claimed)
  }

  /** Claims of one moment are told together. */
  #tellSoon(): void {
    this.#telling ??= setTimeout(() => {
      this.#telling = undefined
      for (const job of this.#told.keys()) this.#tell(job)
    }, CLAIM_DELAY_MS).unref()
  }

  #tell(job: FarFetch): void {
    this.#told.set(job, this.#options.now())
    this.#send(this.#near(), job, false)
  }

  #near(): FarSession[] {
    return this.#options.sessions().filter(({ peerId }) => !this.isFar(peerId))
  }

  #send(to: readonly FarSession[], job: FarFetch, over: boolean): void {
    const { root, level } = job.request
    const claimed = over || level > 0 ? RangeSet.empty : job.claims()
    for (const session of to) session.tellFetching({ type: 'fetching', root, level, claimed, over })
  }
}
