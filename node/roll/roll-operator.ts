import { MeshError } from '../../protocol/errors.ts'
import { formatTime } from '../../protocol/local-time.ts'
import type { Fleet, Seen, Stored } from './fleet.ts'
import { ROLL_BEAT_MS, ROLL_TICK_MS } from './limits.ts'
import { hasEnded, isDown, type Roll } from './roll.ts'
import { type RollAction, refused, rollStep, waveMachines } from './roll-step.ts'
import { HolderCounts, heldByAny } from './waves.ts'
import { type RollWindow, rollWindow } from './window.ts'

/** What a roll reports while it runs. */
export type RollEvent =
  | { readonly type: 'roll'; readonly state: Roll['state']; readonly why: string }
  | { readonly type: 'turn'; readonly machine: string; readonly turn: string; readonly why: string }
  /**
   * `least`: of all blocks of the release the one that is on the fewest running machines is on so many. `down`:
   * machines that this roll has taken down.
   */
  | { readonly type: 'holders'; readonly least: number; readonly block: number; readonly down: readonly string[] }
  | { readonly type: 'warning'; readonly text: string }

interface RollOperatorOptions {
  readonly fleet: Fleet
  readonly report: (event: RollEvent) => void
  /** Unix milliseconds by a clock that nobody sets. */
  readonly now: () => number
  /** What the clock of this machine shows, by which windows go. */
  readonly local: () => Date
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>
}

/** States that people order. */
const ORDERED: ReadonlySet<Roll['state']> = new Set(['paused', 'running', 'aborting'])

/**
 * Runs one roll. Every step is stored before it is done, on this machine and on most machines of the group that are up.
 * So whoever goes on with the roll knows of it, and two operators cannot run it at once.
 */
export class RollOperator {
  readonly #options: RollOperatorOptions
  readonly #window: RollWindow
  #roll: Roll
  #storedAt = Number.NEGATIVE_INFINITY
  #leastSaid = ''
  #waitSaid = ''

  /** `roll` has a higher epoch than every document that was found. */
  constructor(roll: Roll, options: RollOperatorOptions) {
    this.#roll = roll
    this.#options = options
    this.#window = rollWindow(roll.rules.window)
  }

  /**
   * Claims the group for this roll: most of its machines that are up must agree. Errors: ROLL_TAKEN if another roll has
   * the group; PEERS_UNREACHABLE if no machine is up and none is to be powered on.
   */
  async claim(): Promise<void> {
    const stored = await this.#options.fleet.store(this.#roll)
    if (stored.up === 0 && !this.#roll.rules.wake)
      throw new MeshError('PEERS_UNREACHABLE', `no machine of group ${this.#roll.group} is up`)
    if (!isMost(stored)) throw takenBy(this.#roll, stored)
    const state = this.#roll.state === 'claimed' ? 'running' : this.#roll.state
    // The documents that machines have now are no orders to this roll.
    this.#roll = { ...this.#roll, state, sequence: this.#roll.sequence + 1 }
    this.#options.report({ type: 'roll', state, why: this.#roll.why })
  }

  /**
   * Runs until the roll has ended, until failures have stopped it and no machine is down any more, or until the signal
   * aborts. In the last two cases the roll is left as it is, for `resume`. Errors: ROLL_SUPERSEDED when another
   * operator has taken it over.
   */
  async run(signal: AbortSignal): Promise<Roll> {
    while (!this.#isOver() && !signal.aborted) {
      const seen = await this.#options.fleet.look(this.#roll)
      await this.#tick(seen)
      if (!this.#isOver()) await this.#options.pause(ROLL_TICK_MS, signal)
    }
    this.#roll = { ...this.#roll, attended: false }
    await this.#store()
    return this.#roll
  }

  #isOver(): boolean {
    const { state, machines } = this.#roll
    return hasEnded(this.#roll) || (state === 'stopped' && !machines.some((one) => isDown(one) || one.turn === 'woken'))
  }

  async #tick(seen: Seen): Promise<void> {
    const { now, local } = this.#options
    this.#obey(seen.rolls)
    const opensAt = this.#window(local())
    const view = { now: now(), windowOpen: opensAt === undefined, blocks: seen.blocks, sights: seen.sights }
    const step = rollStep(this.#roll, view)
    const { actions } = step
    const document = this.#withWait(step.document, opensAt)
    const changed = document !== this.#roll
    const before = this.#roll
    this.#roll = document
    const isDue = changed || actions.length > 0 || now() - this.#storedAt >= ROLL_BEAT_MS
    const stored = isDue ? await this.#store() : undefined
    // Only stored steps are reported.
    this.#tell(before, document)
    this.#countHolders(seen, actions.length > 0)
    if (stored === undefined) return
    // A step that was not stored is not done. It is tried again later: the machines of the step have heard nothing yet.
    if (!isMost(stored))
      return this.#warn('too few machines of the group could be told what is next, so nothing is done')
    await Promise.all(actions.map((action) => this.#act(action)))
  }

  /** Says in the document until when a closed window is waited for. */
  #withWait(document: Roll, opensAt: Date | undefined): Roll {
    const waits = document.state === 'running' && document.machines.some(({ turn }) => turn === 'waiting')
    const said = this.#waitSaid
    this.#waitSaid = opensAt === undefined || !waits ? '' : `outside its window, waits until ${formatTime(opensAt)}`
    if (this.#waitSaid !== '') return document.why === this.#waitSaid ? document : { ...document, why: this.#waitSaid }
    return said !== '' && document.why === said ? { ...document, why: '' } : document
  }

  async #act(action: RollAction): Promise<void> {
    const { fleet, now } = this.#options
    if (action.type === 'wake') return fleet.wake(action.id)
    const refusal = await fleet.reset(this.#roll, action.id, action.warningSeconds)
    if (refusal === undefined) return
    const after = refused(this.#roll, action.id, refusal, now())
    this.#tell(this.#roll, after)
    this.#roll = after
  }

  async #store(): Promise<Stored> {
    this.#roll = { ...this.#roll, sequence: this.#roll.sequence + 1 }
    const stored = await this.#options.fleet.store(this.#roll)
    this.#storedAt = this.#options.now()
    this.#obey(stored.instead)
    return stored
  }

  /** People on any machine give orders by storing this roll's document with another state. */
  #obey(found: readonly Roll[]): void {
    for (const other of found) {
      const { roll, epoch, sequence, machines } = this.#roll
      if (other.epoch > epoch) {
        const who = `${other.operatorName} has taken over group ${other.group}`
        throw new MeshError('ROLL_SUPERSEDED', other.roll === roll ? who : `${who} with another roll`)
      }
      if (other.epoch === epoch && other.roll < roll && other.state !== 'claimed' && !hasEnded(other))
        // Both rolls began at the same time, on machines that could not see each other.
        throw new MeshError('ROLL_SUPERSEDED', `${other.operatorName} has begun another roll of group ${other.group}`)
      if (other.roll !== roll || other.epoch < epoch || other.sequence < sequence) continue
      const changed = ORDERED.has(other.state) && other.state !== this.#roll.state && !hasEnded(this.#roll)
      const ordered = changed ? { state: other.state, why: other.why, forgiven: other.forgiven } : {}
      const before = this.#roll
      this.#roll = { ...this.#roll, ...ordered, sequence: other.sequence, machines }
      this.#tell(before, this.#roll)
      if (changed) this.#storedAt = Number.NEGATIVE_INFINITY
    }
  }

  #tell(before: Roll, after: Roll): void {
    const turns = new Map(before.machines.map(({ id, turn, why }) => [id, `${turn} ${why}`]))
    for (const { id, name, turn, why } of after.machines)
      if (turns.get(id) !== `${turn} ${why}`) this.#options.report({ type: 'turn', machine: name, turn, why })
    if (before.state !== after.state || (after.state === 'running' && before.why !== after.why))
      this.#options.report({ type: 'roll', state: after.state, why: after.why })
  }

  /**
   * Counts the holders of each block, and reports the least count at every step that takes a machine down, and whenever
   * it has changed.
   */
  #countHolders({ sights, blocks }: Seen, always: boolean): void {
    const machines = waveMachines(this.#roll, { sights, now: this.#options.now() })
    const least = new HolderCounts(blocks, machines).least(heldByAny(blocks, machines))
    if (least === undefined) return
    const down = this.#roll.machines.filter(isDown).map(({ name }) => name)
    const text = `${least.holders} ${down.join()}`
    if (!always && text === this.#leastSaid) return
    this.#leastSaid = text
    this.#options.report({ type: 'holders', least: least.holders, block: least.block, down })
  }

  #warn(text: string): void {
    this.#options.report({ type: 'warning', text })
  }
}

function isMost({ up, accepted }: Stored): boolean {
  return accepted * 2 > up || up === 0
}

function takenBy({ group }: Roll, { instead, up, accepted }: Stored): MeshError {
  const [other] = instead.toSorted((a, b) => b.epoch - a.epoch || b.sequence - a.sequence)
  const why =
    other === undefined ? `${accepted} of ${up} machines agreed` : `${other.operatorName} has begun roll ${other.roll}`
  return new MeshError('ROLL_TAKEN', `the roll of group ${group} cannot begin: ${why}`)
}
