import { MeshError } from '../../../protocol/errors.ts'
import { rememberedMachine } from './remembered-machine.ts'

/**
 * Refuses what only the master does on a machine that is another one, whatever runs there. Takes no lock.
 * Errors: STATE_NOT_MASTER, and those of {@link rememberedMachine}.
 */
export async function requireMaster(stateDir: string): Promise<void> {
  const machine = await rememberedMachine(stateDir)
  if (machine !== undefined && machine.role !== 'master') throw notMaster(machine)
}

/** What a machine says that is asked for what only the master does. */
export function notMaster({ name }: { readonly name: string }): MeshError {
  return new MeshError('STATE_NOT_MASTER', `${name} is not the master of the site`)
}
