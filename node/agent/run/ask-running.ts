import { callControl } from '../../control/control-client.ts'
import type { Place, Role } from '../../trust/members.ts'
import { askLive } from '../answer/ask-live.ts'
import { isInvited, isPeers, isRemoved } from '../answer/replies.ts'
import { describeStatus, type Peers, type Status } from '../answer/status.ts'
import { Machine } from '../machine/machine.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { requireMaster } from '../machine/require-master.ts'
import { lastReceipt } from '../receipts/own-receipts.ts'

/** The status of a machine, whatever runs on its state directory. */
export async function status(stateDir: string, configured?: ConfiguredMachine): Promise<Status> {
  const machine = await Machine.read(stateDir, configured)
  try {
    const live = machine.holder === undefined ? undefined : await askLive(stateDir)
    return describeStatus(machine, await lastReceipt(machine), live)
  } finally {
    await machine.close()
  }
}

/** Members and what the running command knows of them. Errors: STATE_NOT_RUNNING; STATE_BUSY if the command is in no network. */
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

/** Opens an invitation at the running master. Errors: STATE_NOT_RUNNING, STATE_NOT_MASTER, STATE_BUSY. */
export async function invite(stateDir: string, options: InviteOptions): Promise<Invited> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'invite', isInvited, options)
}

/** Takes a machine out of the site, at the running master. Errors: NOT_A_MEMBER, STATE_NOT_RUNNING, STATE_NOT_MASTER, STATE_BUSY. */
export async function removeMember(
  stateDir: string,
  name: string,
): Promise<{ event: 'removed'; name: string; id: string }> {
  await requireMaster(stateDir)
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
