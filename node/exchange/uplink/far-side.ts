/**
 * The folder node/exchange/uplink keeps what crosses the uplink of a site small: each block crosses it once, at the rate that the
 * user allows.
 * - `far-side` is the talk among the machines of a site that fetch over the uplink, which are fellows of each other: `own-claims` is
 *   what this machine has asked for there, `fellows` what the others say.
 * - `claims` and `far-window` tell the picker which items the others fetch, and how many may be on their way.
 * - `uplink-pace` is the rate of the uplink at this time of day; `uplink-gate` holds answers to other sites to it.
 * - `uplink-figures` counts what has crossed.
 */

import { type Digest, toHex } from '../../../protocol/digest.ts'
import type { Message } from '../../../protocol/messages.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { HAND_OVER_MS } from '../limits.ts'
import { Fellows, type Statement } from './fellows.ts'
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
import { OwnClaims } from './own-claims.ts'
import type { UplinkPace } from './uplink-pace.ts'

/** What is fetched, as far as the uplink is concerned. */
interface FarRequest {
  readonly root: Digest
  /** Level of the tree; 0: blocks. */
  readonly level: number
  /** Whether other machines of the site begin to fetch the same at about this time (@default false). */
  readonly together?: boolean
}

/** A fetch, as the far side sees it. */
export interface FarFetch {
  /** Whether the fetch may ask this peer. */
  hasPeer(peerId: string): boolean
  /** A near machine fetches the same over the uplink (true), or no longer does. */
  setFetchesFromFar(peerId: string, fetches: boolean): void
  /** Items that a near machine has asked for over the uplink; it said so at `at`. */
  setClaims(peerId: string, claimed: RangeSet, at: number): void
  /** Takes back what is asked for over the uplink of an item: another machine goes on with it. */
  leaveToOthers(index: number): void
}

/** What the far side knows of one connected peer. */
interface FarSession {
  readonly peerId: string
  /** Blocks that the peer holds of an image, by its root in hexadecimal; undefined if it does not hold the image. */
  held(root: string): { readonly count: number; readonly length: number; has(index: number): boolean } | undefined
  tellFetching(message: FetchingMessage): void
}

interface FarSideOptions {
  /** Peer id of this machine. */
  readonly self: string
  /** Whether a peer is behind the uplink. */
  readonly isFar: (peerId: string) => boolean
  /** Whether every other machine of the site is connected. */
  readonly nearSettled: () => boolean
  /** Connected peers. */
  readonly sessions: () => readonly FarSession[]
  /** Milliseconds of any clock. */
  readonly now: () => number
}

/** What machines of a site tell one another (docs/PROTOCOL.md, `fetching`). */
export type FetchingMessage = Extract<Message, { type: 'fetching' }>

/** One fetch that goes on, or has ended a short time ago. */
interface Followed {
  readonly fetch: FarFetch
  readonly request: FarRequest
  /** Root of the image in hexadecimal. */
  readonly root: string
  readonly claims: OwnClaims
  /** Near peers that have a share although they have not said that they fetch the same; they have it until `expectedUntil`. */
  readonly expected: Set<string>
  expectedUntil: number
  /** When the fellows were last told of the fetch; undefined: they do not know of it. */
  toldAt: number | undefined
}

/**
 * The part of fetching that has to do with the uplink of the site. Machines of one site tell one another that they fetch an
 * image over the uplink, and which items they have asked for there, so that each item crosses the uplink once
 * (docs/decisions/0016-uplink.md).
 *
 * Swarm tells what happens: a fetch begins and ends, a peer comes, goes and speaks, an item is asked for and arrives. The far
 * side tells each fetch what the fellows do ({@link FarFetch}), tells the fellows what this machine does, and says when far
 * peers may be asked.
 */
export class FarSide {
  readonly #options: FarSideOptions
  readonly #fellows = new Fellows()
  readonly #fetches = new Map<FarFetch, Followed>()
  /** Fetches that have ended, until the fellows are told so. */
  readonly #leaving = new Map<Followed, NodeJS.Timeout>()
  /** When a fetch first had a far peer. */
  #wantedSince: number | undefined
  /** When the last near peer was met. */
  #metAt = Number.NEGATIVE_INFINITY
  #telling: NodeJS.Timeout | undefined
  #pace: UplinkPace | undefined

  constructor(options: FarSideOptions) {
    this.#options = options
  }

  /** Whether a peer is behind the uplink. */
  isFar(peerId: string): boolean {
    return this.#options.isFar(peerId)
  }

  /** Whether far peers have something to do with what is being fetched. */
  get isWanted(): boolean {
    return this.#fetches.size > 0 && this.#wantedSince !== undefined
  }

  /** Whether no far peer may be asked for anything at this time of day. */
  get isClosed(): boolean {
    return this.#pace?.bytesPerSecond === 0
  }

  /**
   * Whether another machine that fetches over the uplink still needs from here what came that way last: if this machine went
   * now, that would cross the uplink once more.
   */
  get isNeeded(): boolean {
    const sessions = this.#near()
    for (const { root, claims } of this.#leaving.keys()) {
      const waiting = sessions.filter(({ peerId }) => this.#fellows.of(peerId, root)?.level === 0)
      const held = waiting.map((session) => session.held(root))
      for (const index of claims.arrived()) if (held.some((theirs) => theirs?.has(index) !== true)) return true
    }
    return false
  }

  /**
   * Whether far peers may be asked now. They may not before it is clear what the machines nearby have, and fetch: that takes
   * a moment at the beginning.
   */
  mayAsk(): boolean {
    const { nearSettled } = this.#options
    const now = this.#options.now()
    if (this.#wantedSince === undefined || (this.#pace?.waitMs() ?? 0) > 0) return false
    const waitedMs = now - this.#wantedSince
    if (waitedMs >= FAR_PATIENCE_MAX_MS) return true
    const quietMs = Math.min(waitedMs, now - this.#metAt)
    return quietMs >= (nearSettled() ? FAR_QUIET_MS : FAR_PATIENCE_MS)
  }

  /** From now on this machine asks for no more over the uplink than the pace lets; undefined: for all it wants. */
  limit(pace: UplinkPace | undefined): void {
    this.#pace = pace
    this.#sharePace()
  }

  /** Bytes that are asked for over the uplink, or (negative) did not cross it after all. */
  spend(bytes: number): void {
    this.#pace?.spend(bytes)
  }

  /** A fetch begins: what the fellows have said of the image holds for it. */
  begin(fetch: FarFetch, request: FarRequest): void {
    const followed: Followed = {
      fetch,
      request,
      root: toHex(request.root),
      claims: new OwnClaims(),
      expected: new Set(),
      expectedUntil: Number.POSITIVE_INFINITY,
      toldAt: undefined,
    }
    this.#fetches.set(fetch, followed)
    if (request.together === true) this.#expectOthers(followed)
    for (const peerId of this.#fellows.ids()) this.#apply(followed, peerId, this.#fellows.of(peerId, followed.root))
  }

  /**
   * A fetch has ended. What the fellows were told holds for HAND_OVER_MS: they take what came last from here, and the fetch of
   * the next level may follow.
   */
  ended(fetch: FarFetch): void {
    const followed = this.#fetches.get(fetch)
    this.#fetches.delete(fetch)
    if (followed?.toldAt === undefined) return
    const timer = setTimeout(() => this.#leave(followed), HAND_OVER_MS).unref()
    this.#leaving.set(followed, timer)
  }

  /** A fetch may ask one peer more. */
  noticed(fetch: FarFetch): void {
    const followed = this.#fetches.get(fetch)
    if (followed === undefined || followed.toldAt !== undefined || !this.#hasFarPeer(fetch)) return
    this.#wantedSince ??= this.#options.now()
    this.#tell(followed)
  }

  /** A fetch asks a far peer for an item. */
  asked(fetch: FarFetch, index: number): void {
    this.#fetches.get(fetch)?.claims.asked(index)
    this.#tellSoon()
  }

  /** A fetch no longer asks a far peer for an item, which did not come. */
  returned(fetch: FarFetch, index: number): void {
    this.#fetches.get(fetch)?.claims.returned(index)
    this.#tellSoon()
  }

  /** A fetch has got an item; any peer may have sent it. */
  came(fetch: FarFetch, index: number): void {
    this.#fetches.get(fetch)?.claims.came(index, this.#options.now())
  }

  /** A near peer was met: it is told what is fetched over the uplink. */
  met(session: FarSession): void {
    this.#metAt = this.#options.now()
    for (const followed of this.#told()) this.#send([session], followed, false)
  }

  /** A machine is gone: what it had claimed is for the others to fetch. */
  gone(peerId: string): void {
    this.#fellows.remove(peerId)
    this.#sharePace()
    for (const followed of this.#fetches.values()) {
      followed.expected.delete(peerId)
      this.#apply(followed, peerId, undefined)
    }
  }

  /** A peer says what it fetches over the uplink; of far peers that means nothing here. */
  heard(peerId: string, { root, level, claimed, over }: FetchingMessage): void {
    if (this.isFar(peerId)) return
    const key = toHex(root)
    const statement = over ? undefined : { level, claimed, at: this.#options.now() }
    this.#fellows.say(peerId, key, statement)
    this.#sharePace()
    this.#applyAll(peerId, key, statement)
  }

  /** Tells the fellows that this machine goes on, and no longer believes those that were silent for too long. */
  tick(): void {
    const now = this.#options.now()
    for (const { peerId, root } of this.#fellows.expire(now - FETCHING_SILENT_MS))
      this.#applyAll(peerId, root, undefined)
    this.#sharePace()
    for (const followed of this.#fetches.values()) if (now >= followed.expectedUntil) this.#expectNobody(followed)
    for (const followed of this.#fetches.values()) {
      followed.claims.forget(now - CLAIM_KEEP_MS)
      const { toldAt } = followed
      const fetches = this.#hasFarPeer(followed.fetch)
      if (fetches) this.#wantedSince ??= now
      if (fetches && (toldAt === undefined || now - toldAt >= FETCHING_BEAT_MS)) this.#tell(followed)
      else if (!fetches && toldAt !== undefined) {
        followed.toldAt = undefined
        this.#leave(followed)
      }
    }
  }

  close(): void {
    clearTimeout(this.#telling)
    for (const timer of this.#leaving.values()) clearTimeout(timer)
  }

  /**
   * Gives near peers that lack the image their share at once, so that they and this machine do not ask for the same before they
   * have heard of each other.
   */
  #expectOthers(followed: Followed): void {
    const { fetch, request, root, expected } = followed
    for (const session of this.#near()) {
      const held = session.held(root)
      // A machine that offers any block of the image has all pages of its tree.
      const lacks = held === undefined || (request.level === 0 && held.count < held.length)
      if (lacks) expected.add(session.peerId)
    }
    followed.expectedUntil = this.#options.now() + EXPECTED_MS
    for (const peerId of expected) fetch.setFetchesFromFar(peerId, true)
  }

  /** Takes the share back from expected peers that have not said meanwhile that they fetch. */
  #expectNobody(followed: Followed): void {
    const peers = [...followed.expected]
    followed.expected.clear()
    followed.expectedUntil = Number.POSITIVE_INFINITY
    for (const peerId of peers) this.#apply(followed, peerId, this.#fellows.of(peerId, followed.root))
  }

  #hasFarPeer(fetch: FarFetch): boolean {
    if (this.isClosed) return false
    return this.#options.sessions().some(({ peerId }) => this.isFar(peerId) && fetch.hasPeer(peerId))
  }

  #applyAll(peerId: string, root: string, statement: Statement | undefined): void {
    for (const followed of this.#fetches.values()) if (followed.root === root) this.#apply(followed, peerId, statement)
  }

  #apply(followed: Followed, peerId: string, statement: Statement | undefined): void {
    const { fetch, request, claims, expected } = followed
    // Pages of all levels are one machine's to fetch, blocks are divided; a fellow at the pages does not yet divide the blocks.
    const fetches = statement !== undefined && (statement.level === 0) === (request.level === 0)
    // An expected peer that is still at the pages keeps its share of the blocks.
    if (fetches || !expected.has(peerId)) fetch.setFetchesFromFar(peerId, fetches)
    if (!fetches || request.level > 0) return
    fetch.setClaims(peerId, statement.claimed, statement.at)
    // Two machines that asked for an item at the same moment both know who goes on: the one with the lesser id.
    if (peerId >= this.#options.self) return
    for (const index of claims.open()) if (statement.claimed.has(index)) fetch.leaveToOthers(index)
  }

  /** All machines that fetch over the uplink share its rate, this one included. */
  #sharePace(): void {
    this.#pace?.share(1 + this.#fellows.count)
  }

  /** Claims of one moment are told together. */
  #tellSoon(): void {
    this.#telling ??= setTimeout(() => {
      this.#telling = undefined
      for (const followed of this.#told()) this.#tell(followed)
    }, CLAIM_DELAY_MS).unref()
  }

  #tell(followed: Followed): void {
    followed.toldAt = this.#options.now()
    this.#send(this.#near(), followed, false)
  }

  /** Tells the fellows that the fetch is over, unless another of the same image goes on. */
  #leave(followed: Followed): void {
    this.#leaving.delete(followed)
    if (!this.#told().some(({ root }) => root === followed.root)) this.#send(this.#near(), followed, true)
  }

  /** Fetches that the fellows know of, and that go on. */
  #told(): Followed[] {
    return [...this.#fetches.values()].filter(({ toldAt }) => toldAt !== undefined)
  }

  #near(): FarSession[] {
    return this.#options.sessions().filter(({ peerId }) => !this.isFar(peerId))
  }

  #send(to: readonly FarSession[], { request, claims }: Followed, over: boolean): void {
    const { root, level } = request
    const claimed = over || level > 0 ? RangeSet.empty : claims.all()
    for (const session of to) session.tellFetching({ type: 'fetching', root, level, claimed, over })
  }
}
