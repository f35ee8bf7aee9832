import { DIAL_STEP_MS, DIAL_STEP_PEERS, FAR_PEERS } from './limits.ts'

const NEAR = 0
const MASTER = 1
const ELSEWHERE = 2

/** Which of several members is dialled first: those near, then masters elsewhere, then whoever else is elsewhere. */
export function dialRank({ near, isMaster }: { readonly near: boolean; readonly isMaster: boolean }): number {
  if (near) return NEAR
  return isMaster ? MASTER : ELSEWHERE
}

/** In which order those that are due are dialled, as long as there is room for their rank: asked anew after each. */
export function* dialOrder<T>(
  due: readonly T[],
  rankOf: (one: T) => number,
  hasRoom: (rank: number) => boolean,
  random: () => number,
): Generator<T> {
  const ranks = Map.groupBy(due, rankOf)
  for (const rank of [...ranks.keys()].sort((a, b) => a - b)) {
    const some = ranks.get(rank)!
    // Somebody else first on each machine, so that not all of a lab turn to the same few.
    while (some.length > 0 && hasRoom(rank)) yield* some.splice(Math.floor(random() * some.length), 1)
  }
}

/** What a node knows of itself when it decides whom to dial. */
export interface DialFacts {
  /** This machine gives orders and gathers receipts: it wants to reach everybody. */
  readonly directs: boolean
  /** Set for a restore: how long it has been running. */
  readonly restoringMs?: number | undefined
  /** Something is to be fetched that nobody has who is connected. */
  readonly starves: boolean
  /** Something is to be fetched that nobody near has, as far as can be known now. */
  readonly needsFar: boolean
  /** Members connected, and those of them that are elsewhere. */
  readonly connected: number
  readonly connectedFar: number
}

/**
 * How many more connections to members of that rank are worth having. All machines of a site know one another; a lab has a few
 * connections to other sites, however many machines those have, unless it lacks something. A restore has fewer still.
 */
export function dialRoom(rank: number, facts: DialFacts): number {
  const { directs, restoringMs, starves, needsFar, connected, connectedFar } = facts
  if (starves) return Number.POSITIVE_INFINITY
  const restores = restoringMs !== undefined
  if (rank !== NEAR && restores && !needsFar) return 0
  // There are few masters, and they tell of news and gather receipts.
  if (rank === MASTER || (rank === ELSEWHERE && directs && !restores)) return Number.POSITIVE_INFINITY
  if (rank === ELSEWHERE) return FAR_PEERS - connectedFar
  if (!restores || needsFar) return Number.POSITIVE_INFINITY
  return (1 + Math.floor(restoringMs / DIAL_STEP_MS)) * DIAL_STEP_PEERS - connected
}
