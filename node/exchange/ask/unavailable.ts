import { MeshError } from '../../../protocol/errors.ts'
import type { FetchJob } from './fetch-job.ts'
import { HOLDER_WAIT_MS, NO_DELIVERY_MS, PEER_WAIT_MS } from './limits.ts'

/** Blocks that an error names one by one. */
const MAX_BLOCKS_NAMED = 16

export interface SupplyFacts {
  /** Peers that a session is open with. */
  readonly peers: number
  readonly now: number
  /** Deadlines, for tests; see the constants of the same names. */
  readonly peerWaitMs?: number | undefined
  readonly holderWaitMs?: number | undefined
  /** Why some peers are not asked, for the error. */
  readonly because?: string | undefined
}

/** Why a fetch has to give up: nobody came, nobody holds what is missing, or nobody delivers it. Undefined: it goes on. */
export function whyUnavailable(job: FetchJob, facts: SupplyFacts): MeshError | undefined {
  const { picker } = job
  const { now, peers, peerWaitMs = PEER_WAIT_MS, holderWaitMs = HOLDER_WAIT_MS } = facts
  const idle = job.ready.length === 0 && picker.pending + picker.asked > 0
  if (idle && now - job.deliveredAt >= NO_DELIVERY_MS && peers > 0) return unavailable(job, facts, 'delivers')
  if (!idle || picker.asked > 0 || picker.canServe) {
    job.helpedAt = now
    return undefined
  }
  const waitedMs = now - job.helpedAt
  if (peers > 0) return waitedMs < holderWaitMs ? undefined : unavailable(job, facts, 'holds')
  if (waitedMs < peerWaitMs) return undefined
  const seconds = Math.round(waitedMs / 1000)
  return new MeshError('PEERS_UNREACHABLE', `no machine of the site could be reached in ${seconds} s`)
}

function unavailable(job: FetchJob, { peers, because }: SupplyFacts, verb: 'holds' | 'delivers'): MeshError {
  const { level } = job.request
  const blocks = [...job.picker.left().take(MAX_BLOCKS_NAMED)].sort((a, b) => a - b)
  const count = job.picker.pending + job.picker.asked
  const more = count > blocks.length ? ` and ${count - blocks.length} more` : ''
  const what = level === 0 ? 'blocks' : `hash pages of level ${level}:`
  const why = because === undefined ? '' : `; ${because}`
  return new MeshError(
    'BLOCKS_UNAVAILABLE',
    `none of ${peers} reachable machines ${verb} ${what} ${blocks.join(', ')}${more}${why}`,
    { detail: { level, blocks, count } },
  )
}
