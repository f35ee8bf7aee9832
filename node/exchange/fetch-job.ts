import type { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, toHex } from '../../protocol/digest.ts'
import type { PeerSession } from './session.ts'

/** What to fetch: items of one level of one image's tree. Level 0 are blocks. */
export interface FetchRequest {
  readonly root: Digest
  readonly level: number
  /** Bytes of one item. */
  readonly blockSize: number
  /** Items of `level` to fetch. The caller keeps it; the fetch works on a copy. */
  readonly wanted: Bitmap
  /** The digest an item must have. */
  readonly digestOf: (index: number) => Promise<Digest>
}

/** A verified item. */
export interface FetchedBlock {
  readonly index: number
  readonly data: Uint8Array
  readonly peerId: string
}

/** One copy of a request that is on its way from a peer. */
export interface Ask {
  readonly session: PeerSession<Ticket>
  /** The request's number in that session; undefined until it is sent. */
  id: number | undefined
  readonly askedAt: number
}

export interface Ticket {
  readonly job: FetchJob
  readonly index: number
}

/** The state of one fetch: every item is to be asked (`pending`), asked, waiting to be taken (`ready`), or done. */
export class FetchJob {
  readonly root: string
  readonly request: FetchRequest
  readonly pending: Bitmap
  /** Who was asked for what, by index. */
  readonly asked = new Map<number, Ask[]>()
  readonly ready: FetchedBlock[] = []
  /** Items that some session said it does not have (for levels without have maps). */
  readonly #refused = new Map<PeerSession<Ticket>, Set<number>>()
  failure: Error | undefined
  /** When there last was a peer that can help. */
  helpedAt: number
  /** When an item last arrived. */
  deliveredAt: number
  #wake: (() => void) | undefined

  constructor(request: FetchRequest, pending: Bitmap, now: number) {
    this.request = request
    this.root = toHex(request.root)
    this.pending = pending
    this.helpedAt = now
    this.deliveredAt = now
  }

  /** Bytes asked for and not yet taken by the consumer. */
  get bytesUnderWay(): number {
    return (this.asked.size + this.ready.length) * this.request.blockSize
  }

  get isDone(): boolean {
    return this.pending.count === 0 && this.asked.size === 0 && this.ready.length === 0
  }

  /** Items the peer can be asked for: its have map, undefined for all, or null for none. */
  available(session: PeerSession<Ticket>): Bitmap | undefined | null {
    const held = session.held(this.root)
    if (held === undefined) return null
    // Whoever has the tree has all its pages.
    return this.request.level === 0 ? held : undefined
  }

  has(session: PeerSession<Ticket>, index: number): boolean {
    const available = this.available(session)
    if (available === null || this.#refused.get(session)?.has(index) === true) return false
    return available === undefined || available.has(index)
  }

  refuse(session: PeerSession<Ticket>, index: number): void {
    if (this.request.level === 0) {
      session.held(this.root)?.clear(index)
      return
    }
    const refused = this.#refused.get(session) ?? new Set()
    refused.add(index)
    this.#refused.set(session, refused)
  }

  /** Takes back one ask; an item nobody is asked for any more is pending again. */
  unask(session: PeerSession<Ticket>, index: number): void {
    const asks = this.asked.get(index)
    if (asks === undefined) return
    const left = asks.filter((ask) => ask.session !== session)
    if (left.length > 0) this.asked.set(index, left)
    else {
      this.asked.delete(index)
      this.pending.set(index)
    }
  }

  deliver(block: FetchedBlock, now: number): void {
    this.ready.push(block)
    this.deliveredAt = now
    this.wake()
  }

  fail(error: Error): void {
    this.failure ??= error
    this.wake()
  }

  wake(): void {
    this.#wake?.()
    this.#wake = undefined
  }

  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}
