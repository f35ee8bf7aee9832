import { hasEnded, isDown, type Roll, type Turn } from '../../node/roll/roll.ts'
import { failures, type RollAction, rollStep, type View } from '../../node/roll/roll-step.ts'
import { Random } from '../lab/random.ts'
import { SimulatedRoom } from './simulated-room.ts'

/** One night: `machines` in all, spread over `sites`; `wave` and `holders` are rules of each roll. */
export interface RollScenarioOptions {
  readonly machines: number
  readonly sites: number
  /** Blocks of the image. */
  readonly blocks: number
  readonly wave: number
  readonly holders: number
  readonly seed: number
}

/** What the night showed. */
export interface RollScenarioResult extends RollScenarioOptions {
  /** Steps that took machines down, in the site with most of them; and resets in all sites. */
  readonly rounds: number
  readonly resets: number
  /** Least number of running machines that held a block after a machine with that block went down. */
  readonly leastHolders: number
  /** Most machines that were down at the same time in one site. */
  readonly mostDown: number
  /** Resets that left a block on fewer machines than asked for; must be 0. */
  readonly broken: number
  /** Simulated seconds until the last roll had ended. */
  readonly seconds: number
  readonly ends: Readonly<Record<Extract<Turn, 'verified' | 'failed' | 'skipped'>, number>>
  /** Sites whose roll did not end. */
  readonly unfinished: number
}

const TICK_SECONDS = 5
/** A night. */
const LIMIT_SECONDS = 10 * 3600

/** Runs a roll in each site, all at the same time, with the real decisions. The same options give the same result. */
export function runRollScenario(options: RollScenarioOptions): RollScenarioResult {
  const { machines, sites, seed } = options
  const random = new Random(seed)
  const runs = Array.from({ length: sites }, (_, site) => {
    const count = Math.floor(machines / sites) + (site < machines % sites ? 1 : 0)
    return new SiteRun(new SimulatedRoom(count, options.blocks, random), options)
  })
  let seconds = 0
  for (; seconds < LIMIT_SECONDS && runs.some((run) => !hasEnded(run.roll)); seconds += TICK_SECONDS)
    for (const run of runs) run.tick(seconds * 1000 + 1)
  const sum = (of: (run: SiteRun) => number): number => runs.reduce((total, run) => total + of(run), 0)
  const ended = (turn: Turn): number => sum(({ roll }) => roll.machines.filter((one) => one.turn === turn).length)
  return {
    ...options,
    rounds: Math.max(...runs.map(({ rounds }) => rounds)),
    resets: sum(({ resets }) => resets),
    leastHolders: Math.min(...runs.map(({ leastHolders }) => leastHolders)),
    mostDown: Math.max(...runs.map(({ mostDown }) => mostDown)),
    broken: sum(({ broken }) => broken),
    seconds,
    ends: { verified: ended('verified'), failed: sum(({ roll }) => failures(roll)), skipped: ended('skipped') },
    unfinished: runs.filter(({ roll }) => !hasEnded(roll)).length,
  }
}

/** The roll of one site. */
class SiteRun {
  roll: Roll
  rounds = 0
  resets = 0
  leastHolders = Number.POSITIVE_INFINITY
  mostDown = 0
  broken = 0
  readonly #room: SimulatedRoom

  constructor(room: SimulatedRoom, { wave, holders, machines }: RollScenarioOptions) {
    this.#room = room
    this.roll = {
      format: 1,
      roll: 'simulated',
      group: 'lab',
      epoch: 1,
      sequence: 1,
      operator: 'operator',
      operatorName: 'operator',
      attended: true,
      image: room.image,
      release: room.release,
      rules: {
        wave,
        holders,
        stopAfter: machines,
        evenInUse: false,
        warningSeconds: 0,
        window: '',
        wake: true,
        timeoutSeconds: 1200,
        patienceSeconds: 1200,
      },
      state: 'running',
      why: '',
      startedAt: 0,
      endedAt: 0,
      idleSince: 0,
      forgiven: 0,
      machines: room.names.map((name) => ({
        id: name,
        name,
        turn: 'waiting',
        why: '',
        since: 0,
        askedAt: 0,
        process: '',
        receipt: '',
      })),
    }
  }

  tick(now: number): void {
    if (hasEnded(this.roll)) return
    this.#room.tick(TICK_SECONDS)
    const view = this.#room.view(now)
    const { document, actions } = rollStep(this.roll, view)
    const before = new Set(this.roll.machines.filter(isDown).map(({ id }) => id))
    this.roll = document
    this.#judge(
      actions.filter(({ type, id }) => type === 'reset' && !before.has(id)),
      view,
    )
    for (const action of actions) this.#room.act(action)
  }

  /** Counts the holders again, block by block, in another way than the choice of the wave does. */
  #judge(going: readonly RollAction[], { sights, blocks }: View): void {
    const down = new Set(this.roll.machines.filter(isDown).map(({ id }) => id))
    this.mostDown = Math.max(this.mostDown, down.size)
    if (going.length === 0) return
    this.rounds++
    this.resets += going.length
    const leaving = sights.filter(({ id }) => going.some((action) => action.id === id))
    const staying = sights.filter(({ id, up }) => up && !down.has(id))
    for (let block = 0; block < blocks; block++) {
      if (!leaving.some(({ held }) => held.has(block))) continue
      const left = staying.filter(({ held }) => held.has(block)).length
      this.leastHolders = Math.min(this.leastHolders, left)
      if (left < this.roll.rules.holders) this.broken++
    }
  }
}
