import { Bitmap } from '../../protocol/bitmap.ts'

/** A machine of the lab as the choice of a wave sees it. */
export interface WaveMachine {
  readonly id: string
  /** The machine runs, so that others can fetch what it holds. */
  readonly up: boolean
  /**
   * Blocks of the release that the machine holds. Of a machine that is away and expected back: what it held last. Of
   * any other machine that is away: nothing.
   */
  readonly held: Bitmap
  /** The machine may be reset now, as far as it alone is concerned. */
  readonly ready: boolean
}

interface WaveRules {
  /** Machines that go down together, at most. */
  readonly size: number
  /** Running machines outside the wave that every block stays on, at least. */
  readonly holders: number
}

/** Why a machine has to stay up: without it this block would be on only so many running machines. */
export interface Shortage {
  readonly id: string
  readonly block: number
  readonly holders: number
}

interface Wave {
  /** Machines that may go down now, all at once. */
  readonly ids: readonly string[]
  readonly heldBack: readonly Shortage[]
  /** Set if nothing may go down before this machine is back: blocks that it held are on too few running machines. */
  readonly waitsFor?: Shortage
}

/** Counts for each block on how many running machines it is. */
export class HolderCounts {
  readonly #counts: Uint16Array

  constructor(blocks: number, machines: Iterable<Pick<WaveMachine, 'up' | 'held'>> = []) {
    this.#counts = new Uint16Array(blocks)
    for (const { up, held } of machines) if (up) this.#add(held, 1)
  }

  of(block: number): number {
    return this.#counts[block] ?? 0
  }

  goesDown(held: Bitmap): void {
    this.#add(held, -1)
  }

  /** The blocks that are on `holders` machines or fewer. */
  atMost(holders: number): Bitmap {
    const few = new Bitmap(this.#counts.length)
    // The loop counts indices: there may be millions of blocks, and for-of over entries is slow.
    for (let block = 0; block < this.#counts.length; block++) if (this.#counts[block]! <= holders) few.set(block)
    return few
  }

  /** The least count over `blocks`, and the first block that has it; undefined if there are none. */
  least(blocks: Bitmap): { readonly block: number; readonly holders: number } | undefined {
    let least: { block: number; holders: number } | undefined
    for (let block = blocks.nextSet(0); block !== -1; block = blocks.nextSet(block + 1)) {
      const holders = this.#counts[block]!
      if (least === undefined || holders < least.holders) least = { block, holders }
    }
    return least
  }

  #add(held: Bitmap, change: number): void {
    for (let start = held.nextSet(0); start !== -1; ) {
      const end = held.nextClear(start)
      const stop = end === -1 ? held.length : end
      for (let block = start; block < stop; block++) this.#counts[block]! += change
      start = held.nextSet(stop)
    }
  }
}

/**
 * Chooses the machines that may go down together now, by two rules. First: every block that a machine of the wave holds
 * stays on at least `holders` running machines outside the wave. Second: nothing goes down while something that a
 * missing machine held is on fewer than `holders` machines. A block that nobody in the lab holds binds nobody: it has
 * to come from outside in any case. Pure.
 */
export function nextWave(blocks: number, machines: readonly WaveMachine[], rules: WaveRules): Wave {
  const counts = new HolderCounts(blocks, machines)
  const missing = findMissing(machines, counts, rules.holders)
  if (missing !== undefined) return { ids: [], heldBack: [], waitsFor: missing }
  // Blocks that must not lose one more holder.
  const scarce = counts.atMost(rules.holders)
  const ids: string[] = []
  const heldBack: Shortage[] = []
  for (const { id, held } of inOrder(machines.filter(({ ready, up }) => ready && up))) {
    if (ids.length >= rules.size) break
    const block = held.nextSetInBoth(scarce, 0)
    if (block !== -1) {
      heldBack.push({ id, block, holders: counts.of(block) - 1 })
      continue
    }
    ids.push(id)
    counts.goesDown(held)
    addScarce(scarce, counts, held, rules.holders)
  }
  return { ids, heldBack }
}

/**
 * Plans the waves of a whole roll, as if every machine came back with all blocks that the lab has. Also names the
 * machines that can never go down.
 */
export function planWaves(
  blocks: number,
  machines: readonly WaveMachine[],
  rules: WaveRules,
): {
  readonly waves: readonly (readonly string[])[]
  readonly rest: readonly Shortage[]
  readonly waitsFor?: Shortage
} {
  const all = heldByAny(blocks, machines)
  const waves: (readonly string[])[] = []
  for (let now = machines; ; ) {
    const { ids, heldBack, waitsFor } = nextWave(blocks, now, rules)
    if (ids.length === 0) return { waves, rest: heldBack, ...(waitsFor === undefined ? {} : { waitsFor }) }
    waves.push(ids)
    const gone = new Set(ids)
    now = now.map((machine) => (gone.has(machine.id) ? { ...machine, held: all, ready: false } : machine))
  }
}

/** Blocks that some machine holds, or held when it was last up. */
export function heldByAny(blocks: number, machines: readonly Pick<WaveMachine, 'held'>[]): Bitmap {
  const all = new Bitmap(blocks)
  for (const { held } of machines) for (const [start, end] of held.toRanges().runs()) all.setRange(start, end)
  return all
}

function findMissing(machines: readonly WaveMachine[], counts: HolderCounts, holders: number): Shortage | undefined {
  const away = inOrder(machines.filter(({ up, held }) => !up && held.count > 0))
  if (away.length === 0) return undefined
  const few = counts.atMost(holders - 1)
  for (const { id, held } of away) {
    const block = held.nextSetInBoth(few, 0)
    if (block !== -1) return { id, block, holders: counts.of(block) }
  }
  return undefined
}

/**
 * Orders machines: those that hold least come first. The lab loses least by them, and gains most when they are back.
 * Equal ones keep their order.
 */
function inOrder(machines: readonly WaveMachine[]): WaveMachine[] {
  return machines.toSorted((a, b) => a.held.count - b.held.count)
}

function addScarce(scarce: Bitmap, counts: HolderCounts, changed: Bitmap, holders: number): void {
  for (let block = changed.nextSet(0); block !== -1; block = changed.nextSet(block + 1))
    if (counts.of(block) <= holders) scarce.set(block)
}
