import { isMeshError } from '../../../protocol/errors.ts'
import type { MachineConfig } from '../../state/machine-config.ts'
import { StateDirectory } from '../../state/state-directory.ts'

/** What a state directory says its machine is; undefined if there is none yet. Takes no lock. Errors: FORMAT_NEWER, STATE_CORRUPT. */
export async function rememberedMachine(stateDir: string): Promise<MachineConfig | undefined> {
  try {
    return (await StateDirectory.open(stateDir, { create: false, readOnly: true })).machine
  } catch (error) {
    if (isMeshError(error, 'STATE_MISSING')) return undefined
    throw error
  }
}
