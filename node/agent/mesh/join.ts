import { access, rename, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { sameBytes, toHex } from '../../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { decodeJoinToken, type JoinToken } from '../../../protocol/join-token.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { isMachineName } from '../../../protocol/names.ts'
import type { BlockDevice } from '../../disk/block-device.ts'
import { assertUnused } from '../../disk/disk-use.ts'
import { openDevice } from '../../disk/file-device.ts'
import { readDisk } from '../../disk/read-disk.ts'
import { assertFits } from '../../restore/fit.ts'
import { fsyncDirectory } from '../../state/atomic-file.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { loadOrCreateMachineKey, type MachineKey } from '../../trust/machine-key.ts'
import type { Role } from '../../trust/members.ts'
import type { FetchMetadata } from '../../trust/metadata-update.ts'
import { TrustStore } from '../../trust/trust-store.ts'
import type { TrustView } from '../../trust/trusted-view.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { logLockFile } from '../../writelog/log-lock.ts'
import { Desk } from '../machine/desk.ts'
import { holdState } from '../machine/hold-state.ts'
import { CLOCK_TOLERANCE_MS } from '../machine/limits.ts'
import { macAddresses } from '../machine/mac-addresses.ts'
import type { AgentOptions } from '../machine/options.ts'
import { rememberedMachine } from '../machine/remembered-machine.ts'
import { listenToRemember } from '../machine/settings.ts'
import { addressesOf } from './addresses.ts'
import { requestEnrolment } from './enrolment.ts'
import { withMetadataFrom } from './metadata-sync.ts'

/** Result of `mesh join`. */
export interface Joined {
  readonly event: 'joined'
  readonly site: string
  readonly name: string
  readonly id: string
  readonly role: 'operator' | 'machine'
  /** Absent on a machine that manages no disk. */
  readonly image?: string
  readonly release?: number
}

/** Options of `mesh join`. */
interface JoinOptions extends AgentOptions {
  readonly token: string
  /** A machine that only operates the others has none. */
  readonly disk?: string
  /** Default: the host name. */
  readonly name?: string
  /** Needed only if the site publishes several images. */
  readonly image?: string
  readonly force: boolean
  /** Join with a new key, and leave the one that was here: it was copied from another machine. */
  readonly newIdentity: boolean
}

/** What of this machine decides whether it may join: the disk that was looked at, and what the user said. */
interface Joiner {
  readonly name: string
  readonly image: string | undefined
  /** What it had until now: it keeps that if it is still published, and no other is asked for. */
  readonly imageBefore: string | undefined
  /** Absent on a machine that manages no disk. */
  readonly device: BlockDevice | undefined
}

/**
 * `mesh join`: makes this machine a member of the site that the token names. The disk is looked at, not changed. What can be wrong
 * is found before the machine is a member. A join that was cut short is run again with the same token; it does not use the
 * invitation twice. A machine that joins again keeps its key, its disk and its settings, as far as nothing else is said.
 */
export async function join(options: JoinOptions): Promise<Joined> {
  const token = decodeJoinToken(options.token)
  const name = options.name ?? hostname().split('.')[0] ?? ''
  if (!isMachineName(name)) throw noMachineName(name, options.name === undefined)
  checkClock(token)
  const before = await rememberedMachine(options.stateDir)
  const disk = options.disk ?? before?.disk
  const device = disk === undefined ? undefined : await openDevice(disk, { writable: true })
  await device?.close()
  if (disk !== undefined) {
    const { force, stateDir } = options
    await assertUnused(disk, { to: 'write', force, ours: [logLockFile(stateDir)] })
  }
  const diskIdentity = disk === undefined ? undefined : await readDisk(disk)
  const state = await holdState(options.stateDir, { create: true, command: options.command })
  const desk = await Desk.open({ state, command: options.command, report: options.report })
  try {
    await refuseOtherSite(state, token)
    const keyFile = options.newIdentity ? NEW_KEY_FILE : KEY_FILE
    const key = await loadOrCreateMachineKey(state.path(keyFile))
    const joiner = { name, device, image: options.image, imageBefore: before?.image }
    const { site, trust } = await enrol(state, token, joiner, key)
    const role = roleOf(trust, key.id, site)
    const manifest = choose(trust.view(), { site, role }, joiner)
    if (device !== undefined && manifest !== undefined) tellOfLargerDisk(device, manifest, options)
    await state.subdirectory('trees')
    await addressesOf(state).put(token.peerId, [...token.addresses])
    await state.saveMachine({
      ...state.machine,
      site,
      siteId: toHex(token.siteId),
      name,
      id: key.id,
      role,
      ...(manifest === undefined ? {} : { image: manifest.image }),
      ...(disk === undefined ? {} : { disk: resolve(disk) }),
      ...(diskIdentity === undefined ? {} : { diskIdentity }),
      listen: listenToRemember(options) ?? before?.listen ?? [],
    })
    await useKey(state, keyFile)
    const release = manifest === undefined ? {} : { image: manifest.image, release: manifest.release }
    return { event: 'joined', site, name, id: key.id, role, ...release }
  } finally {
    await desk.close()
    await state.close()
  }
}

const KEY_FILE = 'identity.pem'
/** The key of `--new-identity` until the machine has joined with it; so a join that was cut short goes on with the same one. */
const NEW_KEY_FILE = 'identity.new.pem'

/** From now on the key that this machine joined with is its own. */
async function useKey(state: StateDirectory, keyFile: string): Promise<void> {
  if (keyFile === KEY_FILE) return
  await rename(state.path(keyFile), state.path(KEY_FILE))
  await fsyncDirectory(state.directory)
}

function noMachineName(name: string, isHostName: boolean): MeshError {
  const what = isHostName ? `the host name "${name}"` : `"${name}"`
  return new MeshError(
    'USAGE',
    `${what} is no machine name: give one by --name, of letters a to z, digits, dots, dashes and underscores, at most 63`,
  )
}

/** The table of a whole disk knows where its backup is; only tools that repair tables expect it elsewhere. */
function tellOfLargerDisk(device: BlockDevice, manifest: VerifiedManifest, { report }: JoinOptions): void {
  if (manifest.sectorSize === undefined || device.size === manifest.size) return
  const text = `${device.path} is larger than the image by ${device.size - manifest.size} bytes: a partition table of the kind GPT has its backup at the end of the image, and not at the end of this disk; leave it there (handbook, “Whole disks”)`
  report({ type: 'note', text })
}

/** The master's clock decides about the token; this only finds a clock that is clearly wrong before metadata is judged by it. */
function checkClock(token: JoinToken): void {
  if (Date.now() > token.issuedAt - CLOCK_TOLERANCE_MS) return
  const [now, issued] = [formatTime(Date.now()), formatTime(token.issuedAt)]
  throw new MeshError('CLOCK_WRONG', `the clock of this machine says ${now}, but the token was made on ${issued}`)
}

async function refuseOtherSite(state: StateDirectory, token: JoinToken): Promise<void> {
  if (state.machine === undefined || state.machine.siteId === toHex(token.siteId)) {
    if (state.machine?.role === 'master')
      throw new MeshError('STATE_OTHER_SITE', `${state.directory} is the state directory of the master itself`)
    if (await hasTrust(state)) refuseOtherTrust(state, token, await TrustStore.open(state.path('trust')))
    return
  }
  throw new MeshError(
    'STATE_OTHER_SITE',
    `${state.directory} belongs to site ${state.machine.site}, the token to another one`,
  )
}

/** What the master has made of this machine. Errors: NOT_A_MEMBER if it was removed again meanwhile. */
function roleOf(trust: TrustStore, id: string, site: string): Exclude<Role, 'master'> {
  const role = trust.view().memberById(id)?.role
  if (role === 'machine' || role === 'operator') return role
  throw new MeshError('NOT_A_MEMBER', `this machine is no member of ${site}`)
}

/**
 * Asks the master whether this machine may join, and whether image and disk go together; then for membership. Takes the site's metadata
 * from it.
 */
async function enrol(
  state: StateDirectory,
  token: JoinToken,
  joiner: Joiner,
  key: MachineKey,
): Promise<{ site: string; trust: TrustStore }> {
  const { MeshHost } = await import('../../net/host.ts')
  const host = await MeshHost.start({ key, listen: [], gate: { admits: (peerId) => peerId === token.peerId } })
  try {
    await host.connect(token.peerId, token.addresses).catch((error: unknown) => {
      if (!isMeshError(error)) throw error
      const where = token.addresses.join(', ')
      throw new MeshError(
        'PEERS_UNREACHABLE',
        `the master that made the token cannot be reached at ${where}, or it no longer accepts it`,
        {
          cause: error,
        },
      )
    })
    const open = (protocol: string) => host.open(token.peerId, protocol)
    const machine = { name: joiner.name, mac: await macAddresses() }
    const answer = await requestEnrolment(open, token, { ...machine, check: true })
    if (answer.checked) {
      const view = await withMetadataFrom(open, (fetch) => offeredView(state, token, fetch))
      choose(view, answer, joiner)
    }
    const { site } = await requestEnrolment(open, token, machine)
    const trust = await withMetadataFrom(open, (fetch) => takeMetadata(state, token, fetch))
    return { site, trust }
  } finally {
    await host.stop()
  }
}

/** What the site's metadata say; nothing of them is kept. */
async function offeredView(state: StateDirectory, token: JoinToken, fetch: FetchMetadata): Promise<TrustView> {
  const directory = state.path('trust.offered')
  const clear = (): Promise<void> => rm(directory, { recursive: true, force: true })
  // A crash may have left it.
  await clear()
  try {
    return (await TrustStore.join(directory, token.siteId, fetch)).view()
  } finally {
    await clear()
  }
}

async function takeMetadata(state: StateDirectory, token: JoinToken, fetch: FetchMetadata): Promise<TrustStore> {
  const directory = state.path('trust')
  if (!(await hasTrust(state))) return TrustStore.join(directory, token.siteId, fetch)
  const trust = await TrustStore.open(directory)
  await trust.refresh(fetch)
  return trust
}

function refuseOtherTrust({ directory }: StateDirectory, token: JoinToken, trust: TrustStore): void {
  if (sameBytes(trust.siteId, token.siteId)) return
  const [ours, theirs] = [toHex(trust.siteId).slice(0, 8), toHex(token.siteId).slice(0, 8)]
  throw new MeshError('STATE_OTHER_SITE', `${directory} trusts site ${ours}, the token is of site ${theirs}`)
}

/** Whether this state directory has trusted metadata, that is: creating or joining the site got that far. */
async function hasTrust(state: StateDirectory): Promise<boolean> {
  return access(state.path('trust', 'CURRENT')).then(
    () => true,
    () => false,
  )
}

/**
 * The image that this machine is to have; undefined if it manages no disk. Errors: USAGE, IMAGE_UNKNOWN, and those of a disk that does
 * not go with the image.
 */
function choose(
  view: TrustView,
  { site, role }: { readonly site: string; readonly role?: string | undefined },
  { name, device, image, imageBefore = '' }: Joiner,
): VerifiedManifest | undefined {
  if (device === undefined) {
    if (role !== 'machine') return undefined
    throw new MeshError('USAGE', `the token makes ${name} a lab machine of ${site}: give the --disk to restore, too`)
  }
  const manifest = chooseImage(view, site, image ?? view.newest(imageBefore)?.image)
  assertFits(device, manifest)
  return manifest
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
