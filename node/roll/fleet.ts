import type { Roll } from './roll.ts'
import type { Refusal, Sight } from './roll-step.ts'

/** What was found when all machines were looked at. */
export interface Seen {
  readonly sights: readonly Sight[]
  /** Blocks of the release. */
  readonly blocks: number
  /** As {@link Fleet.rolls}. */
  readonly rolls: readonly Roll[]
}

/** What became of an attempt to store a roll's document. */
export interface Stored {
  /** Machines of the group that are up, and of those the ones that took it. */
  readonly up: number
  readonly accepted: number
  /** What those that refused it have instead. */
  readonly instead: readonly Roll[]
}

/** The machines of a group, as the operator of a roll reaches them. */
export interface Fleet {
  look(roll: Pick<Roll, 'group' | 'image' | 'release'>): Promise<Seen>
  /** What the machines of the group, and this one, have stored of the group's rolls. */
  rolls(group: string): Promise<readonly Roll[]>
  /** Stores the document on this machine, durably, then on all machines of the group that are up. */
  store(roll: Roll): Promise<Stored>
  /** Returns why the machine will not; undefined if it will, or could not be reached. Errors: ROLL_SUPERSEDED. */
  reset(roll: Roll, id: string, warningSeconds: number): Promise<Refusal | undefined>
  wake(id: string): Promise<void>
}
