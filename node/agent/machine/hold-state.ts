import { setTimeout as sleep } from 'node:timers/promises'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import { heldValues } from './held-values.ts'
import { HOLD_TICK_MS, HOLD_WAIT_MS } from './limits.ts'
import { askWork, describeWork, type Work } from './work.ts'

type HoldOptions = Pick<Parameters<typeof StateDirectory.open>[1], 'create' | 'command' | 'orCopy'>

/**
 * Opens a state directory and holds it for this process. A command that only reads has it for a moment, and is waited for.
 * Errors: STATE_IN_USE, which says what the other command is at, and those of {@link StateDirectory.open}.
 */
export async function holdState(stateDir: string, options: HoldOptions): Promise<StateDirectory> {
  return whenFree(stateDir, options, (work, inUse) => {
    const text = `${stateDir} is in use by ${describeWork(work)}`
    throw new MeshError('STATE_IN_USE', text, { detail: inUse.detail })
  })
}

/** A state directory that is open for reading, and what the command is at that holds it, if another one does. */
interface ReadState {
  readonly state: StateDirectory
  readonly holder?: Work
}

/**
 * Opens a state directory to read it, whoever holds it: what the database holds is asked of that process.
 * Errors: STATE_IN_USE if a command of an earlier version holds it, and those of {@link StateDirectory.open}.
 */
export async function readState(stateDir: string): Promise<ReadState> {
  const beside = async (holder: Work): Promise<ReadState> => {
    const values = heldValues(stateDir)
    return { state: await StateDirectory.open(stateDir, { create: false, readOnly: true, values }), holder }
  }
  const holder = await askWork(stateDir)
  if (holder !== undefined) return beside(holder)
  const opened = await whenFree(stateDir, { create: false, orCopy: true }, beside)
  return opened instanceof StateDirectory ? { state: opened } : opened
}

/** Opens the directory when nobody holds it; `held` says what to do if a command that answers does. */
async function whenFree<T = never>(
  stateDir: string,
  options: HoldOptions,
  held: (work: Work, inUse: MeshError) => T | Promise<T>,
): Promise<StateDirectory | T> {
  const until = performance.now() + HOLD_WAIT_MS
  for (;;) {
    try {
      return await StateDirectory.open(stateDir, options)
    } catch (error) {
      if (!isMeshError(error, 'STATE_IN_USE')) throw error
      const work = await askWork(stateDir)
      if (work !== undefined) return held(work, error)
      if (performance.now() >= until) throw error
      await sleep(HOLD_TICK_MS)
    }
  }
}
