import type { Bitmap } from '../../protocol/bitmap.ts'

/** Blocks looked at around one starting point, and starting points tried, for one choice. */
const SAMPLE = 48
const PROBES = 3

/**
 * Chooses which block to ask of one peer: among those still to be asked that the peer has, the one the fewest peers have
 * (rarest first), so that machines that start together empty the source of different blocks and get the rest from each
 * other. It samples around a few starting points instead of looking at every block, so a choice costs the same for a
 * thousand blocks as for millions. Pure: the caller gives the random numbers.
 *
 * `wanted`: blocks still to be asked. `has`: what the peer has, or undefined for everything. `holders`: how many peers
 * have a block. `random`: in [0, 1). Returns -1 if the peer has nothing that is wanted.
 */
export function pickBlock(
  wanted: Bitmap,
  has: Bitmap | undefined,
  holders: (index: number) => number,
  random: () => number,
): number {
  if (wanted.count === 0) return -1
  let best = -1
  let fewest = Number.POSITIVE_INFINITY
  for (let probe = 0; probe < PROBES && fewest > 1; probe++) {
    const start = Math.floor(random() * wanted.length)
    let at = nextFrom(wanted, has, start)
    if (at === -1) return -1
    for (let i = 0; i < SAMPLE && fewest > 1; i++) {
      const count = holders(at)
      if (count < fewest) {
        fewest = count
        best = at
      }
      const next = nextIn(wanted, has, at + 1)
      if (next === -1) break
      at = next
    }
  }
  return best
}

/** The next candidate at or after `start`, going round at the end. */
function nextFrom(wanted: Bitmap, has: Bitmap | undefined, start: number): number {
  const after = nextIn(wanted, has, start)
  return after !== -1 || start === 0 ? after : nextIn(wanted, has, 0)
}

function nextIn(wanted: Bitmap, has: Bitmap | undefined, from: number): number {
  return has === undefined ? wanted.nextSet(from) : wanted.nextSetInBoth(has, from)
}
