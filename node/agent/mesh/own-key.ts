import { rename } from 'node:fs/promises'
import { fsyncDirectory } from '../../state/atomic-file.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { loadOrCreateMachineKey, type MachineKey } from '../../trust/machine-key.ts'

const KEY_FILE = 'identity.pem'
/** The key of `--new-identity` until the machine is a member with it; so what was cut short goes on with the same one. */
const NEW_KEY_FILE = 'identity.new.pem'

/** Whether the machine leaves the key that it has. */
interface Identity {
  readonly newIdentity: boolean
}

/** The key that this machine wants to be a member with. Errors: those of {@link loadOrCreateMachineKey}. */
export function loadOwnKey(state: StateDirectory, { newIdentity }: Identity): Promise<MachineKey> {
  return loadOrCreateMachineKey(state.path(newIdentity ? NEW_KEY_FILE : KEY_FILE))
}

/** From now on the key that this machine is a member with is its own. */
export async function keepOwnKey(state: StateDirectory, { newIdentity }: Identity): Promise<void> {
  if (!newIdentity) return
  await rename(state.path(NEW_KEY_FILE), state.path(KEY_FILE))
  await fsyncDirectory(state.directory)
}
