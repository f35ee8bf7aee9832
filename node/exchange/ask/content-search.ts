import { MAX_FINDS_PER_MESSAGE } from '../../../protocol/constants.ts'
import type { Digest } from '../../../protocol/digest.ts'
import type { Run } from '../../../protocol/ranges.ts'
import type { FetchRequest } from './fetch-request.ts'
import type { PeerSession } from './session.ts'
import type { Ticket } from './ticket.ts'

interface ContentSearchOptions {
  readonly request: FetchRequest
  /** In [0, 1): machines that search at the same time begin at different places. */
  readonly random: () => number
  /** Whether a peer, which is behind the uplink if `far`, is to be asked whether it has a block. */
  readonly isSought: (index: number, far: boolean) => boolean
  /** Whether the fetch still has use for what a peer says. */
  readonly goesOn: (session: PeerSession<Ticket>) => boolean
  /** A peer has some blocks: half-open runs of indices. */
  readonly found: (session: PeerSession<Ticket>, runs: readonly Run[]) => void
  /** The digests of the blocks cannot be had. */
  readonly failed: (error: Error) => void
}

/**
 * Asks peers that hold other images which of the wanted blocks they have all the same: releases of an image agree in most of
 * their blocks, and a machine that has the content can serve it.
 */
export class ContentSearch {
  readonly #options: ContentSearchOptions
  /** Peers that are being searched, and whether each is to be searched once more. */
  readonly #running = new Map<PeerSession<Ticket>, boolean>()

  constructor(options: ContentSearchOptions) {
    this.#options = options
  }

  /** Searches a peer; if it is being searched already, it is searched once more after that. */
  start(session: PeerSession<Ticket>, far: boolean): void {
    const running = this.#running.has(session)
    this.#running.set(session, running)
    if (running) return
    this.#search(session, far).then(
      () => {
        const again = this.#running.get(session) === true && this.#options.goesOn(session)
        this.#running.delete(session)
        if (again) this.start(session, far)
      },
      (error: Error) => this.#options.failed(error),
    )
  }

  async #search(session: PeerSession<Ticket>, far: boolean): Promise<void> {
    const { request, goesOn, found } = this.#options
    for (const indices of portions(this.#sought(far))) {
      const digests = await Promise.all(indices.map((index): Digest | Promise<Digest> => request.digestOf(index)))
      if (!goesOn(session)) return
      const has = await session.find(Buffer.concat(digests))
      if (!goesOn(session)) return
      const runs = [...has.values()].map((i): Run => [indices[i]!, indices[i]! + 1])
      if (runs.length > 0) found(session, runs)
    }
  }

  /** Goes once around the image, from a place chosen at random. */
  *#sought(far: boolean): Generator<number> {
    const { request, random, isSought } = this.#options
    const { wanted } = request
    const start = Math.floor(random() * wanted.length)
    const parts = [
      [start, wanted.length],
      [0, start],
    ] as const
    for (const [from, end] of parts)
      for (let at = wanted.nextSet(from); at !== -1 && at < end; at = wanted.nextSet(at + 1))
        if (isSought(at, far)) yield at
  }
}

function* portions(indices: Iterable<number>): Generator<number[]> {
  let portion: number[] = []
  for (const index of indices) {
    portion.push(index)
    if (portion.length < MAX_FINDS_PER_MESSAGE) continue
    yield portion
    portion = []
  }
  if (portion.length > 0) yield portion
}
