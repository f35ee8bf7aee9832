import { type DiskLayout, encodeLayout } from '../../../protocol/disk-layout.ts'
import { callControl } from '../../control/control-client.ts'
import type { Place, Role } from '../../trust/members.ts'
import { askLive } from '../answer/ask-live.ts'
import { isInvited, isPeers, isRemoved } from '../answer/replies.ts'
import { describeStage, describeStatus, type Peers, type Status } from '../answer/status.ts'
import { Machine } from '../machine/machine.ts'
import type { ConfiguredMachine } from '../machine/options.ts'
import { requireMaster } from '../machine/require-master.ts'
import { lastReceipt } from '../receipts/own-receipts.ts'
import { isLayoutSet } from '../release/publish-layout.ts'
import { isApproved, isMachines, isRefused } from './admission-desk.ts'
import { type Invitations, isInvitations, isRevoked, type Revoked } from './invitation-desk.ts'

/** The status of a machine, whatever runs on its state directory. */
export async function status(stateDir: string, configured?: ConfiguredMachine): Promise<Status> {
  const machine = await Machine.read(stateDir, configured)
  try {
    const live = machine.holder === undefined ? undefined : await askLive(stateDir)
    return describeStatus(machine, { receipt: await lastReceipt(machine), stage: await describeStage(machine), live })
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

/** The invitations of this master. Errors: STATE_NOT_RUNNING, STATE_NOT_MASTER, STATE_BUSY. */
export async function invitations(stateDir: string): Promise<Invitations> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'invitations', isInvitations)
}

/** Takes back the invitation whose id begins so, or `all`. Errors: TOKEN_UNKNOWN, USAGE, and as {@link invitations}. */
export async function revokeInvitation(stateDir: string, id: string, dryRun: boolean): Promise<Revoked> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'revoke', isRevoked, { id, dryRun })
}

/** Takes a machine out of the site, at the running master. Errors: NOT_A_MEMBER, STATE_NOT_RUNNING, STATE_NOT_MASTER, STATE_BUSY. */
export async function removeMember(
  stateDir: string,
  name: string,
): Promise<{ event: 'removed'; name: string; id: string }> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'remove', isRemoved, { name })
}

/** What a check accepts. */
type Of<C> = C extends (value: unknown) => value is infer T ? T : never
/** Machines that ask the master to be enrolled. */
export type Machines = Of<typeof isMachines>
/** What became of an approval. */
export type Approved = Of<typeof isApproved>
/** Who was refused. */
export type Refused = Of<typeof isRefused>

/** Who asks the running master to be enrolled. Errors: STATE_NOT_RUNNING, STATE_NOT_MASTER, STATE_BUSY. */
export async function machines(stateDir: string): Promise<Machines> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'machines', isMachines)
}

/** Whom an approval is about, and what it allows. */
interface ApproveOptions {
  readonly name?: string | undefined
  readonly code?: string | undefined
  readonly all?: boolean | undefined
  /** For how long it holds for machines that ask later; milliseconds. */
  readonly ttlMs?: number | undefined
  readonly as?: string | undefined
  readonly wipe?: boolean | undefined
  readonly site?: string | undefined
  readonly group?: string | undefined
  readonly list?: readonly { readonly mac: string; readonly name: string; readonly group?: string }[] | undefined
}

/** Lets machines in, at the running master. Errors: NOBODY_WAITS, NAME_TAKEN, DISK_FOREIGN, and as {@link machines}. */
export async function approve(stateDir: string, options: ApproveOptions): Promise<Approved> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'approve', isApproved, options)
}

/** Turns a machine away, at the running master. Errors: NOBODY_WAITS, and as {@link machines}. */
export async function refuse(stateDir: string, who: Pick<ApproveOptions, 'name' | 'code'>): Promise<Refused> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'refuse', isRefused, who)
}

/** Says how the disks of bare machines are laid out, at the running master. Errors: as {@link machines}, LAYOUT_INVALID, IMAGE_UNKNOWN. */
export async function setLayout(
  stateDir: string,
  layout: DiskLayout,
  lent: readonly string[],
): Promise<{ event: 'layout-set'; version: number }> {
  await requireMaster(stateDir)
  return callControl(stateDir, 'layout', isLayoutSet, { layout: encodeLayout(layout), lent })
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
