import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { anyText, type Check, literal, natural, object, optional, text } from '../../../protocol/json-shape.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'
import { MAX_PATH_BYTES } from './limits.ts'

/**
 * What this machine last knew of its disk. `partial`: a restore to this release began and did not end, so what the
 * disk holds has to be found by a scan. `whole`: it ended verified (or, on the master, was published from this disk).
 */
export interface DiskState {
  readonly state: 'partial' | 'whole'
  readonly image: string
  readonly release: number
  /** Hexadecimal. */
  readonly root: string
  /** Path the content is served from, if that is not the managed disk itself: the master's own copy. */
  readonly servedFrom?: string
}

const KEY = 'disk'
/** What is stored as the state of the disk must be this. */
const isDiskState: Check<DiskState> = object({
  state: literal('partial', 'whole'),
  image: text(MAX_TEXT_BYTES),
  release: natural(),
  root: text(MAX_TEXT_BYTES),
  servedFrom: optional(anyText(MAX_PATH_BYTES)),
})

const shelfOf = (state: StateDirectory): Shelf<DiskState> =>
  state.shelf('disk-state', storedDocument('the state of the disk', isDiskState))

/** Undefined on a machine that was never restored and never published. */
export async function readDiskState(state: StateDirectory): Promise<DiskState | undefined> {
  return shelfOf(state).get(KEY)
}

/** Durable when it resolves: `partial` must be on disk before the first block is written (docs/DURABILITY.md). */
export async function writeDiskState(state: StateDirectory, value: DiskState): Promise<void> {
  await shelfOf(state).putDurable(KEY, value)
}
