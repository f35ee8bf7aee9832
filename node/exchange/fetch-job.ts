import type { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, toHex } from '../../protocol/digest.ts'
import type { PackedBlock } from '../../protocol/granules.ts'
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
  /** For blocks that are wrong only in part. */
  readonly sparse?: SparseBlocks
}

/** Of which blocks only some granules are to be fetched, and where the others come from. */
export interface SparseBlocks {
  /** Granules of a block to ask for; undefined for all of it. */
  granules(index: number): Bitmap | undefined
  /** The block as it stands here, in a buffer of its own. */
  read(index: number): Promise<Uint8Array>
}

/** A verified item. */
export interface FetchedBlock {
  readonly index: number
  /** All of it, also if only some granules were fetched. */
  readonly data: Uint8Array
  readonly peerId: string
  /** Bytes of content that came over the network for it, compressed or not. */
  readonly received: number
  /** The granules that were fetched; undefined for all. */
  readonly granules?: Bitmap
  /** Granules that were not to be fetched turned out to be wrong here, so all of the block was. */
  readonly neighboursWrong?: boolean
}

/** Granules of a peer that made no right block together with ours: one of the two is wrong. */
export interface Doubted {
  readonly peerId: string
  readonly content: PackedBlock
  readonly granules: Bitmap
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
  /** What was asked for of a block; undefined for all of it. */
  readonly granules: Bitmap | undefined
}

/** The state of one fetch: every item is to be asked (`pending`), asked, waiting to be taken (`ready`), or done. */
export class FetchJob {
  readonly root: string
  readonly request: FetchRequest
  readonly pending: Bitmap
  /** Who was asked for what, by index. */
  readonly asked = new Map<number, Ask[]>()
  readonly ready: FetchedBlock[] = []
  /** Blocks of which all is asked for, to find out whether the peer or this disk was wrong. */
  readonly doubted = new Map<number, Doubted>()
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

  /** Granules of an item to ask for; undefined for all of it. */
  granules(index: number): Bitmap | undefined {
    return this.doubted.has(index) ? undefined : this.request.sparse?.granules(index)
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

  /** An item is no longer asked of anybody: `from` has answered, the others are told. It is pending again. */
  recall(index: number, from: PeerSession<Ticket>): void {
    for (const { session, id } of this.asked.get(index) ?? []) {
      if (session !== from && id !== undefined) session.cancel(id)
    }
    this.asked.delete(index)
    this.pending.set(index)
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
