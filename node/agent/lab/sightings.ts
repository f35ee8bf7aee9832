import { type Check, object, time } from '../../../protocol/json-shape.ts'
import { type MachineState, replyShape } from '../../../protocol/operate-messages.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'

/** What a machine said of itself, and when: ISO 8601, by the clock of whoever asked. */
export interface Sighting {
  readonly at: string
  readonly state: MachineState
}

const isSighting: Check<Sighting> = object({ at: time, state: replyShape('state') })

/** The last sighting of each machine, by its peer id, in the state database of the master and of operators' machines. */
export function sightingsOf(state: StateDirectory): Shelf<Sighting> {
  return state.hints('sightings', storedDocument('what a machine said last', isSighting))
}
