import type { Roll } from './roll.ts'
import type { Refusal, Sight } from './roll-step.ts'

/** What a look at all machines found. */
export interface Seen {
  readonly sights: readonly Sight[]
  /** Blocks of the release. */
  readonly blocks: number
  /** As {@link Fleet.rolls}. */
  readonly rolls: readonly Roll[]
}

/** The result of storing a roll's document. */
export interface Stored {
  /** Machines of the group that are up, and how many of them took the document. */
  readonly up: number
  readonly accepted: number
  /** The documents of machines that refused this one. */
  readonly instead: readonly Roll[]
}

/** The machines of a group, as the operator of a roll reaches them. */
export interface Fleet {
  look(roll: Pick<Roll, 'group' | 'image' | 'release'>): Promise<Seen>
  /** The documents that the machines of the group, and this machine, have stored. */
  rolls(group: string): Promise<readonly Roll[]>
  /** Stores the document on this machine, durably, then on all machines of the group that are up. */
  store(roll: Roll): Promise<Stored>
  /**
   * Asks a machine to reset. Returns why it will not; undefined if it will, or if it could not be reached. Errors:
   * ROLL_SUPERSEDED.
   */
  reset(roll: Roll, id: string, warningSeconds: number): Promise<Refusal | undefined>
  wake(id: string): Promise<void>
}
