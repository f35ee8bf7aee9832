import { MeshError } from '../../../protocol/errors.ts'
import { HOLDER_WAIT_MS, NO_DELIVERY_MS, PEER_WAIT_MS } from './limits.ts'

/** Blocks that an error names one by one. */
const MAX_BLOCKS_NAMED = 16

/** How one fetch is supplied. */
interface Supply {
  /** Level of the tree; 0: blocks. */
  readonly level: number
  /** How many items have not come. */
  readonly missing: number
  /** Which items these are. */
  readonly indices: IteratorObject<number>
  /** Milliseconds since something came; undefined while the fetch waits for its consumer, or for nothing. */
  readonly dryMs: number | undefined
  /** Milliseconds for which nobody could be asked for anything; undefined: somebody can, or is. */
  readonly helplessMs: number | undefined
}

/** What a fetch has around it. */
export interface SupplyFacts {
  /** Peers that a session is open with. */
  readonly peers: number
  /** How long to wait for a first peer, and for a holder (@default PEER_WAIT_MS and HOLDER_WAIT_MS). */
  readonly peerWaitMs?: number | undefined
  readonly holderWaitMs?: number | undefined
  /** The network of this machine may be there a moment later: nothing is given up. */
  readonly isComing?: boolean
  /** Why peers are not asked that are there, or why none is, for the error: "the uplink is closed at this time". */
  readonly because?: string | undefined
}

/**
 * Why a fetch has to give up: nobody came (PEERS_UNREACHABLE), nobody holds what is missing, or nobody delivers it
 * (BLOCKS_UNAVAILABLE). Undefined: it goes on.
 */
export function whyUnavailable(supply: Supply, facts: SupplyFacts): MeshError | undefined {
  const { dryMs, helplessMs } = supply
  const { peers, peerWaitMs = PEER_WAIT_MS, holderWaitMs = HOLDER_WAIT_MS, isComing, because } = facts
  if (isComing === true) return undefined
  if (dryMs !== undefined && dryMs >= NO_DELIVERY_MS && peers > 0) return unavailable(supply, facts, 'delivers')
  if (helplessMs === undefined) return undefined
  if (peers > 0) return helplessMs < holderWaitMs ? undefined : unavailable(supply, facts, 'holds')
  if (helplessMs < peerWaitMs) return undefined
  const seconds = Math.round(helplessMs / 1000)
  const why = because === undefined ? '' : `: ${because}`
  const text = `no machine of the site could be reached in ${seconds} s${why}`
  return new MeshError(
    'PEERS_UNREACHABLE',
    `${text}; ${supply.missing} ${supply.level === 0 ? 'blocks' : 'hash pages'} are missing`,
    {
      detail: { level: supply.level, count: supply.missing },
    },
  )
}

function unavailable(supply: Supply, { peers, because }: SupplyFacts, verb: 'holds' | 'delivers'): MeshError {
  const { level, missing, indices } = supply
  const blocks = [...indices.take(MAX_BLOCKS_NAMED)].sort((a, b) => a - b)
  const more = missing > blocks.length ? ` and ${missing - blocks.length} more` : ''
  const what = level === 0 ? 'blocks' : `hash pages of level ${level}:`
  const why = because === undefined ? '' : `; ${because}`
  return new MeshError(
    'BLOCKS_UNAVAILABLE',
    `none of ${peers} reachable machines ${verb} ${what} ${blocks.join(', ')}${more}${why}`,
    { detail: { level, blocks, count: missing } },
  )
}
