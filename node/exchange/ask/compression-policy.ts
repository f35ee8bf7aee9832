import { PACK_OVERHEAD_MS, UNPACK_OVERHEAD_MS } from './limits.ts'

/** What decides whether compressing pays; docs/decisions/0011-compression.md derives the rule. Rates in bytes per second. */
export interface CompressionCosts {
  /** What the link to the peer carries. */
  readonly linkRate: number
  /** What all peers together send to this machine. */
  readonly totalRate: number
  /** Content that the peer compresses, and this machine unpacks, on one core. */
  readonly packRate: number
  readonly unpackRate: number
  /** Compressed size ÷ size. */
  readonly ratio: number
}

/**
 * The smallest answer, in bytes, that is worth compressing; 0 if none is. Compressing pays if it spares the link more time than
 * two cores spend together: the peer's on compressing, and this machine's on unpacking what comes from all peers.
 */
export function smallestToPack({ linkRate, totalRate, packRate, unpackRate, ratio }: CompressionCosts): number {
  const total = Math.max(linkRate, totalRate)
  const gain = 1 - ratio - linkRate / packRate - total / unpackRate
  if (!(gain > 0)) return 0
  const overhead = (linkRate * PACK_OVERHEAD_MS + total * UNPACK_OVERHEAD_MS) / 1000
  return Math.max(1, Math.ceil(overhead / gain))
}
