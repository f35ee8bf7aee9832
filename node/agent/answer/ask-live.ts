import { isMeshError } from '../../../protocol/errors.ts'
import { callControl } from '../../control/control-client.ts'
import { isLive } from './replies.ts'
import type { Live } from './status.ts'

/** What the running command says of itself, if it is in the network. */
export async function askLive(stateDir: string): Promise<Live | undefined> {
  return callControl(stateDir, 'live', isLive).catch((error: unknown) => {
    if (isMeshError(error, 'STATE_BUSY', 'STATE_NOT_RUNNING')) return undefined
    throw error
  })
}
