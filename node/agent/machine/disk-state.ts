import type { StateDirectory } from '../../state/state-directory.ts'

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

/** Undefined on a machine that was never restored and never published. */
export async function readDiskState(state: StateDirectory): Promise<DiskState | undefined> {
  return state.sublevel<DiskState>('disk-state').get(KEY)
}

/** Durable when it resolves: `partial` must be on disk before the first block is written (docs/DURABILITY.md). */
export async function writeDiskState(state: StateDirectory, value: DiskState): Promise<void> {
  await state.putDurable('disk-state', KEY, value)
}
