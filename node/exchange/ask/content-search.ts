import { MAX_FINDS_PER_MESSAGE } from '../../../protocol/constants.ts'
import type { Digest } from '../../../protocol/digest.ts'
import type { FetchJob, Ticket } from './fetch-job.ts'
import { FIND_HOLDERS } from './limits.ts'
import type { PeerSession } from './session.ts'

export interface SearchOptions {
  readonly job: FetchJob
  /** A peer that holds other images than the one that is fetched. */
  readonly session: PeerSession<Ticket>
  /** In [0, 1): machines that search at the same time begin at different places. */
  readonly random: () => number
  /** Behind the uplink: asked only for what this machine is to fetch there. */
  readonly far: boolean
  /** Whether the fetch and the session go on. */
  readonly goesOn: () => boolean
  /** The peer has some blocks: half-open runs of indices. */
  readonly found: (runs: readonly [number, number][]) => void
}

/**
 * Asks a peer that holds other images which of the wanted blocks it has all the same: releases of an image agree in most of
 * them, and whoever has the content can serve it. Left out are blocks that enough other machines are known to have.
 */
export async function searchContent({ job, session, random, far, goesOn, found }: SearchOptions): Promise<void> {
  const { wanted, digestOf } = job.request
  const start = Math.floor(random() * wanted.length)
  for (const indices of portions(candidates(job, start, far))) {
    const digests = await Promise.all(indices.map((index): Digest | Promise<Digest> => digestOf(index)))
    if (!goesOn()) return
    const has = await session.find(Buffer.concat(digests))
    if (!goesOn()) return
    const runs = [...has.values()].map((i): [number, number] => [indices[i]!, indices[i]! + 1])
    if (runs.length > 0) found(runs)
  }
}

/** Going round from `start`. */
function* candidates({ request: { wanted }, picker }: FetchJob, start: number, far: boolean): Generator<number> {
  const parts = [
    [start, wanted.length],
    [0, start],
  ] as const
  for (const [from, end] of parts)
    for (let at = wanted.nextSet(from); at !== -1 && at < end; at = wanted.nextSet(at + 1))
      if (picker.isPending(at) && (far ? picker.isForFar(at) : picker.holdersOf(at) < FIND_HOLDERS)) yield at
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
