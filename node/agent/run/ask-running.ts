import { isMeshError } from '../../../protocol/errors.ts'
import { callControl } from '../../control/control-client.ts'
import type { Place, Role } from '../../trust/members.ts'
import { Machine } from '../machine/machine.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { lastReceipt } from '../receipts/own-receipts.ts'
import { isInvited, isPeers, isRemoved, isStatus } from './replies.ts'
import { describeStatus, type Peers, type Status } from './status.ts'

/** The status of a machine, from its running command if there is one, else from its state directory. */
export async function status(stateDir: string, configured?: ConfiguredMachine): Promise<Status> {
  try {
    return await callControl(stateDir, 'status', isStatus)
  } catch (error) {
    if (!isMeshError(error, 'STATE_NOT_RUNNING')) throw error
  }
  const machine = await Machine.open(stateDir, { configured, orCopy: true })
  try {
    return describeStatus(machine, await lastReceipt(machine))
  } finally {
    await machine.close()
  }
}

/** Members and what the running command knows of them. Errors: STATE_NOT_RUNNING. */
export function peers(stateDir: string): Promise<Peers> {
  return callControl(stateDir, 'peers', isPeers)
}

/** What an invitation is to allow. `ttlMs`: how long it can be used; `uses`: by how many machines. */
interface InviteOptions extends Partial<Place> {
  readonly ttlMs: number
  readonly uses: number
  /** Multiaddrs at which the master is reached from afar; tried before its own. */
  readonly addresses?: readonly string[]
}

/** Opens an invitation at the running master. Errors: STATE_NOT_RUNNING, STATE_NOT_MASTER. */
export async function invite(stateDir: string, options: InviteOptions): Promise<Invited> {
  return callControl(stateDir, 'invite', isInvited, options)
}

/** Takes a machine out of the site, at the running master. Errors: NOT_A_MEMBER, STATE_NOT_RUNNING, STATE_NOT_MASTER. */
export async function removeMember(
  stateDir: string,
  name: string,
): Promise<{ event: 'removed'; name: string; id: string }> {
  return callControl(stateDir, 'remove', isRemoved, { name })
}

/** Result of `mesh invite`. */
export interface Invited {
  readonly event: 'invitation'
  readonly token: string
  readonly site: string
  readonly siteId: string
  readonly uses: number
  readonly expires: string
  readonly role: Role
  readonly group: string
  /** Why no other machine can use the token, if that is so. */
  readonly warning?: string
}
