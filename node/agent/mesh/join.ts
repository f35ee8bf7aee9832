import { hostname } from 'node:os'
import { CLOCK_TOLERANCE_MS } from '../../../protocol/constants.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { decodeJoinToken, type JoinToken } from '../../../protocol/join-token.ts'
import { formatTime } from '../../../protocol/local-time.ts'
import { isMachineName } from '../../../protocol/names.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import type { MachineKey } from '../../trust/machine-key.ts'
import type { TrustStore } from '../../trust/trust-store.ts'
import { Desk } from '../machine/desk.ts'
import { holdState } from '../machine/hold-state.ts'
import { macAddresses } from '../machine/mac-addresses.ts'
import type { AgentOptions } from '../machine/options.ts'
import { rememberedMachine } from '../machine/remembered-machine.ts'
import { requestEnrolment } from './enrolment.ts'
import { withMetadataFrom } from './metadata-sync.ts'
import { keepOwnKey, loadOwnKey } from './own-key.ts'
import {
  choose,
  type Joiner,
  lookAtDisk,
  offeredView,
  refuseOtherSite,
  roleOf,
  settle,
  takeMetadata,
} from './settle.ts'

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
  const looked = disk === undefined ? undefined : await lookAtDisk(disk, options)
  const state = await holdState(options.stateDir, { create: true, command: options.command })
  const desk = await Desk.open({ state, command: options.command, report: options.report })
  try {
    const { siteId } = token
    await refuseOtherSite(state, { siteId, by: 'the token' })
    const key = await loadOwnKey(state, options)
    const joiner = { name, device: looked?.device, image: options.image, imageBefore: before?.image }
    const { site, trust } = await enrol(state, token, joiner, key)
    const role = roleOf(trust, key.id, site)
    const manifest = choose(trust.view(), { site, role }, joiner)
    const having = { disk, device: looked?.device, diskIdentity: looked?.identity, manifest, master: token }
    await settle(state, { site, siteId, name, id: key.id, role }, { ...having, listenBefore: before?.listen }, options)
    await keepOwnKey(state, options)
    const release = manifest === undefined ? {} : { image: manifest.image, release: manifest.release }
    return { event: 'joined', site, name, id: key.id, role, ...release }
  } finally {
    await desk.close()
    await state.close()
  }
}

function noMachineName(name: string, isHostName: boolean): MeshError {
  const what = isHostName ? `the host name "${name}"` : `"${name}"`
  return new MeshError(
    'USAGE',
    `${what} is no machine name: give one by --name, of letters a to z, digits, dots, dashes and underscores, at most 63`,
  )
}

/** The master's clock decides about the token; this only finds a clock that is clearly wrong before metadata is judged by it. */
function checkClock(token: JoinToken): void {
  if (Date.now() > token.issuedAt - CLOCK_TOLERANCE_MS) return
  const [now, issued] = [formatTime(Date.now()), formatTime(token.issuedAt)]
  throw new MeshError('CLOCK_WRONG', `the clock of this machine says ${now}, but the token was made on ${issued}`)
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
      const view = await withMetadataFrom(open, (fetch) => offeredView(state, token.siteId, fetch))
      choose(view, answer, joiner)
    }
    const { site } = await requestEnrolment(open, token, machine)
    const trust = await withMetadataFrom(open, (fetch) => takeMetadata(state, token.siteId, fetch))
    return { site, trust }
  } finally {
    await host.stop()
  }
}
