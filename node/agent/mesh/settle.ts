import { access, rm } from 'node:fs/promises'
import { relative, resolve } from 'node:path'
import { type Digest, sameBytes, toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { assertUnused } from '../../disk/disk-use.ts'
import { openDevice } from '../../disk/file-device.ts'
import type { KnownDisk } from '../../disk/known-disk.ts'
import { readDisk } from '../../disk/read-disk.ts'
import { assertFits } from '../../restore/fit.ts'
import type { MachineConfig } from '../../state/machine-config.ts'
import { StateDirectory } from '../../state/state-directory.ts'
import type { Role } from '../../trust/members.ts'
import type { FetchMetadata } from '../../trust/metadata-update.ts'
import { TrustStore } from '../../trust/trust-store.ts'
import type { TrustView } from '../../trust/trusted-view.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { logLockFile } from '../../writelog/log-lock.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { AgentOptions } from '../machine/options.ts'
import { partDirectory } from '../machine/parts.ts'
import { listenToRemember } from '../machine/settings.ts'
import { addressesOf } from './addresses.ts'

// What `mesh join` and `mesh enrol` have in common: becoming a machine of a site, however it was let in.

/** What of this machine decides whether it can become one: the disk that was looked at, and what the user said. */
export interface Joiner {
  readonly name: string
  readonly image: string | undefined
  /** What it had until now: it keeps that if it is still published, and no other is asked for. */
  readonly imageBefore: string | undefined
  /** Absent on a machine that manages no disk, or none yet. */
  readonly device: BlockDevice | undefined
  /** Set on a bare machine. */
  readonly toLayOut?: DiskToLayOut | undefined
}

/** A whole disk that gets its partitions when the machine is a member. */
export interface DiskToLayOut {
  /** What the system's partition is to hold. Errors: those of a layout that the site does not have, or that does not go with the disk. */
  choose(view: TrustView): VerifiedManifest
  /** The partitions of images as they will be, once `choose` was called, the system's first; `whole`: what the disk is known by. */
  targets(whole: KnownDisk): readonly TargetPartition[]
}

/** A partition that is to be restored. */
export interface TargetPartition {
  readonly number: number
  readonly image: string
  /** People choose whether it is started. */
  readonly isSystem: boolean
  readonly disk: string
  readonly identity: KnownDisk
}

/** The site that a machine wants to belong to, and what names it, for messages: `the token`. */
interface WantedSite {
  readonly siteId: Digest
  readonly by: string
}

/** Looks at a disk that is to be managed: it can be written, and nobody uses it. Errors: those of the disk, DISK_MOUNTED, DISK_IN_USE. */
export async function lookAtDisk(
  disk: string,
  { force, stateDir }: { readonly force: boolean; readonly stateDir: string },
): Promise<{ readonly device: BlockDevice; readonly identity: KnownDisk }> {
  const device = await openDevice(disk, { writable: true })
  await device.close()
  await assertUnused(disk, { to: 'write', force, ours: [logLockFile(stateDir)] })
  return { device, identity: await readDisk(disk) }
}

/** Refuses a state directory of another site, or of the master itself. Errors: STATE_OTHER_SITE. */
export async function refuseOtherSite(state: StateDirectory, wanted: WantedSite): Promise<void> {
  if (state.machine === undefined || state.machine.siteId === toHex(wanted.siteId)) {
    if (state.machine?.role === 'master')
      throw new MeshError('STATE_OTHER_SITE', `${state.directory} is the state directory of the master itself`)
    if (await hasTrust(state)) refuseOtherTrust(state, wanted, await TrustStore.open(state.path('trust')))
    return
  }
  throw new MeshError(
    'STATE_OTHER_SITE',
    `${state.directory} belongs to site ${state.machine.site}, ${wanted.by} to another one`,
  )
}

/** What the site's metadata say; nothing of them is kept. */
export async function offeredView(state: StateDirectory, siteId: Digest, fetch: FetchMetadata): Promise<TrustView> {
  const directory = state.path('trust.offered')
  const clear = (): Promise<void> => rm(directory, { recursive: true, force: true })
  // A crash may have left it.
  await clear()
  try {
    return (await TrustStore.join(directory, siteId, fetch)).view()
  } finally {
    await clear()
  }
}

/** Takes the site's metadata for good. */
export async function takeMetadata(state: StateDirectory, siteId: Digest, fetch: FetchMetadata): Promise<TrustStore> {
  const directory = state.path('trust')
  if (!(await hasTrust(state))) return TrustStore.join(directory, siteId, fetch)
  const trust = await TrustStore.open(directory)
  await trust.refresh(fetch)
  return trust
}

/** What the master has made of this machine. Errors: NOT_A_MEMBER if it was removed again meanwhile. */
export function roleOf(trust: TrustStore, id: string, site: string): Exclude<Role, 'master'> {
  const role = trust.view().memberById(id)?.role
  if (role === 'machine' || role === 'operator') return role
  throw new MeshError('NOT_A_MEMBER', `this machine is no member of ${site}`)
}

/**
 * The image that this machine is to have; undefined if it manages no disk. Errors: USAGE, IMAGE_UNKNOWN, and those of a disk that does
 * not go with the image.
 */
export function choose(
  view: TrustView,
  { site, role }: { readonly site: string; readonly role?: string | undefined },
  { name, device, image, imageBefore = '', toLayOut }: Joiner,
): VerifiedManifest | undefined {
  if (toLayOut !== undefined) return toLayOut.choose(view)
  if (device === undefined) {
    if (role !== 'machine') return undefined
    throw new MeshError('USAGE', `the token makes ${name} a lab machine of ${site}: give the --disk to restore, too`)
  }
  const manifest = chooseImage(view, site, image ?? view.newest(imageBefore)?.image)
  assertFits(device, manifest)
  return manifest
}

/** Writes down what the machine has become. From then on the state directory belongs to it. */
export async function settle(
  state: StateDirectory,
  who: Pick<MachineConfig, 'site' | 'name' | 'id'> & {
    readonly role: Exclude<Role, 'master'>
    readonly siteId: Digest
  },
  having: {
    readonly disk: string | undefined
    readonly device: BlockDevice | undefined
    readonly diskIdentity: KnownDisk | undefined
    readonly manifest: VerifiedManifest | undefined
    /** Where the master was found. */
    readonly master: { readonly peerId: string; readonly addresses: readonly string[] }
    readonly listenBefore: readonly string[] | undefined
  },
  options: Pick<AgentOptions, 'listen' | 'fromFile' | 'report'>,
): Promise<void> {
  const { disk, device, diskIdentity, manifest, master, listenBefore } = having
  if (device !== undefined && manifest !== undefined) tellOfLargerDisk(device, manifest, options.report)
  await state.subdirectory('trees')
  await addressesOf(state).put(master.peerId, [...master.addresses])
  await state.saveMachine({
    ...state.machine,
    site: who.site,
    siteId: toHex(who.siteId),
    name: who.name,
    id: who.id,
    role: who.role,
    ...(manifest === undefined ? {} : { image: manifest.image }),
    ...(disk === undefined ? {} : { disk: resolve(disk) }),
    ...(diskIdentity === undefined ? {} : { diskIdentity }),
    listen: listenToRemember(options) ?? listenBefore ?? [],
  })
}

/** Makes the state directories of the further partitions of a machine that has settled, or writes down there what has changed. */
export async function settleParts(state: StateDirectory, parts: readonly TargetPartition[]): Promise<void> {
  const { serving: _, reset: __, beside: ___, ...machine } = state.machine!
  for (const { number, image, isSystem, disk, identity } of parts) {
    const directory = partDirectory(state.directory, number)
    const part = await StateDirectory.open(directory, { create: true })
    const partOf = relative(directory, state.directory)
    await part
      .saveMachine({ ...machine, ...part.machine, image, disk, diskIdentity: identity, partOf, system: isSystem })
      .finally(() => part.close())
  }
}

/** The table of a whole disk knows where its backup is; only tools that repair tables expect it elsewhere. */
function tellOfLargerDisk(device: BlockDevice, manifest: VerifiedManifest, report: (event: AgentEvent) => void): void {
  if (manifest.sectorSize === undefined || device.size === manifest.size) return
  const text = `${device.path} is larger than the image by ${device.size - manifest.size} bytes: a partition table of the kind GPT has its backup at the end of the image, and not at the end of this disk; leave it there (handbook, “Whole disks”)`
  report({ type: 'note', text })
}

function refuseOtherTrust({ directory }: StateDirectory, { siteId, by }: WantedSite, trust: TrustStore): void {
  if (sameBytes(trust.siteId, siteId)) return
  const [ours, theirs] = [toHex(trust.siteId).slice(0, 8), toHex(siteId).slice(0, 8)]
  throw new MeshError('STATE_OTHER_SITE', `${directory} trusts site ${ours}, ${by} is of site ${theirs}`)
}

/** Whether this state directory has trusted metadata, that is: creating or joining the site got that far. */
async function hasTrust(state: StateDirectory): Promise<boolean> {
  return access(state.path('trust', 'CURRENT')).then(
    () => true,
    () => false,
  )
}

/** The image asked for, or the only one there is. */
function chooseImage(view: TrustView, site: string, image: string | undefined): VerifiedManifest {
  const [only] = view.images
  const chosen = image ?? (view.images.length === 1 ? only : undefined)
  const manifest = chosen === undefined ? undefined : view.newest(chosen)
  if (manifest !== undefined) return manifest
  const what = image === undefined ? 'which image this machine is to have is not clear' : `there is no image ${image}`
  throw new MeshError('IMAGE_UNKNOWN', `${what}: site ${site} publishes ${view.images.join(', ') || 'none yet'}`)
}
