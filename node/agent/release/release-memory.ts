import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { type Check, list, literal, natural, object, optional, text } from '../../../protocol/json-shape.ts'
import type { DiskContent } from '../../disk/disk-content.ts'
import { MAX_PARTITIONS } from '../../disk/limits.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'

/** What the master remembers of a content that it has published. */
export interface ReleaseMemory {
  /** What was found on its disk. */
  readonly found: DiskContent
  /** Number of the master's own last receipt at that time; 0 if it had restored nothing. */
  readonly receipt: number
}

const isMemory: Check<ReleaseMemory> = object({
  found: object({
    table: optional(object({ kind: literal('GPT', 'MBR'), partitions: natural(), sectorSize: optional(natural()) })),
    fileSystems: list(text(MAX_TEXT_BYTES), MAX_PARTITIONS),
  }),
  receipt: natural(),
})

const shelfOf = (state: StateDirectory): Shelf<ReleaseMemory> =>
  state.shelf('published-content', storedDocument('the memory of a release', isMemory))

/** Undefined for a release of a version that did not remember, or of another master. */
export function recallRelease(state: StateDirectory, root: Uint8Array): Promise<ReleaseMemory | undefined> {
  return shelfOf(state).get(toHex(root))
}

/** Remembers a content by its root, durably. Errors: DISK_FULL. */
export function rememberContent(state: StateDirectory, root: Uint8Array, memory: ReleaseMemory): Promise<void> {
  return shelfOf(state).putDurable(toHex(root), memory)
}
