import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { encodeJoinToken } from '../../../protocol/join-token.ts'
import { findName, isPlaceName } from '../../../protocol/names.ts'
import { APPROVAL, ApprovalBook } from '../../trust/approvals.ts'
import { INVITATION, InvitationBook } from '../../trust/invitations.ts'
import { loadOrCreateMachineKey, type MachineKey } from '../../trust/machine-key.ts'
import type { Member, Place } from '../../trust/members.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { notMaster } from '../machine/require-master.ts'
import type { ServicePart } from '../machine/service-part.ts'
import { Admission } from '../mesh/admission.ts'
import { Enrolment } from '../mesh/enrolment.ts'
import type { MeshNode, MeshNodeOptions } from '../mesh/mesh-node.ts'
import type { HeldRelease } from '../offer/open-source.ts'
import { publishLayout } from '../release/publish-layout.ts'
import { publishEarlier, rollbackRequest } from '../release/rollback.ts'
import { type AdmissionDesk, approve, listMachines, refuse } from './admission-desk.ts'
import type { Invited } from './ask-running.ts'
import { RENEW_TICK_MS } from './limits.ts'

type Params = Readonly<Record<string, unknown>>

/** What the state directory of a master has, and no other. */
interface Keys {
  readonly signer: SiteSigner
  readonly invitations: InvitationBook
  readonly approvals: ApprovalBook
  readonly voucher: MachineKey
}

/** What only the master does while it runs: it invites and enrols machines, removes them, and signs what changes. */
export class Master {
  readonly #machine: Machine
  readonly #signer: SiteSigner
  readonly #invitations: InvitationBook
  readonly #report: (event: AgentEvent) => void
  #node: Pick<MeshNode, 'fork' | 'connectedMembers'> | undefined
  /** Who asks to be enrolled without a token, and what was decided. */
  readonly admission: Admission
  readonly approvals: ApprovalBook
  /** How the master's node answers strangers: whether they may connect, and their requests to join. */
  readonly enrolment: NonNullable<MeshNodeOptions['enrolment']>

  private constructor(
    machine: Machine,
    { signer, invitations, approvals, voucher }: Keys,
    report: (event: AgentEvent) => void,
  ) {
    this.#machine = machine
    this.#signer = signer
    this.#invitations = invitations
    this.approvals = approvals
    this.#report = report
    const { trust, config } = machine
    const joined = (member: { id: string; name: string }): void => report({ type: 'member', ...member })
    const mayEnrol = (): void => this.assertOnlyOne()
    const isConnected = (id: string): boolean => this.#node?.connectedMembers().some((one) => one.id === id) === true
    const common = { trust, signer, site: config.site, mayEnrol, joined }
    this.admission = new Admission({ ...common, approvals, voucher, master: config.id, isConnected })
    const enrolment = new Enrolment({ ...common, invitations, admission: this.admission })
    this.enrolment = {
      isGuest: (peerId) => enrolment.isGuest(peerId),
      serve: (stream, address) => enrolment.serve(stream, address),
    }
  }

  /** Opens the site's keys, invitations and approvals. Errors: those of the keys. */
  static async open(machine: Machine, report: (event: AgentEvent) => void): Promise<Master> {
    const { trust, state } = machine
    const signer = await SiteSigner.open({ keysDir: state.path('keys'), trust })
    const invitations = await InvitationBook.load(state.shelf('invitations', INVITATION))
    const approvals = await ApprovalBook.load(state.shelf('approvals', APPROVAL))
    // The signer has found it to be one of the site's.
    const voucher = await loadOrCreateMachineKey(state.path('keys', 'timestamp.pem'))
    return new Master(machine, { signer, invitations, approvals, voucher }, report)
  }

  /** Renews the metadata, now and every RENEW_TICK_MS until the stack ends. */
  async renewNowAndThen(stack: AsyncDisposableStack): Promise<void> {
    await this.#signer.renew()
    const timer = setInterval(() => void this.#renew(), RENEW_TICK_MS)
    stack.adopt(timer, clearInterval)
  }

  /** From now on nothing is signed if that node hears that another machine signs with the keys of this one. */
  heed(node: Pick<MeshNode, 'fork' | 'connectedMembers'>): void {
    this.#node = node
  }

  /** Errors: METADATA_FORKED if another machine signs for the site. */
  assertOnlyOne(): void {
    if (this.#node?.fork !== undefined) throw this.#node.fork
  }

  /** Takes a machine out of the site. Errors: NOT_A_MEMBER, METADATA_FORKED. */
  async remove(name: string): Promise<{ event: 'removed'; name: string; id: string }> {
    this.assertOnlyOne()
    const { id, name: known } = await this.#signer.removeMember(name)
    return { event: 'removed', name: known, id }
  }

  /** Signs how the disks of bare machines are laid out. Errors: METADATA_FORKED, and those of {@link publishLayout}. */
  async layout(params: Params): ReturnType<typeof publishLayout> {
    this.assertOnlyOne()
    return publishLayout(params, { trust: this.#machine.trust, signer: this.#signer })
  }

  /** Publishes an earlier release again. Errors: those of {@link publishEarlier}. */
  async rollback(node: MeshNode, held: readonly HeldRelease[], params: Params): ReturnType<typeof publishEarlier> {
    this.assertOnlyOne()
    const request = rollbackRequest(params)
    const { image = this.#machine.config.image } = request
    const source = held.find(({ manifest }) => manifest.image === image)?.source
    return publishEarlier(request, { machine: this.#machine, signer: this.#signer, node, source })
  }

  /** Opens an invitation, and says by which token it is used. Errors: USAGE, METADATA_FORKED. */
  async invite(node: MeshNode, params: Params): Promise<Invited> {
    this.assertOnlyOne()
    const { trust, config } = this.#machine
    const [ttlMs, uses] = [Number(params.ttlMs), Number(params.uses)]
    const place = knownPlace(placeOf(params, config.site), trust.view().members)
    const opened = await this.#invitations.open({ ttlMs, uses, place })
    const told = Array.isArray(params.addresses) ? params.addresses.map(String) : []
    const addresses = [...told, ...node.addresses()]
    const warning = whyUseless(addresses)
    return {
      event: 'invitation',
      token: encodeJoinToken({ siteId: trust.siteId, peerId: node.peerId, addresses, ...opened }),
      ...place,
      siteId: toHex(trust.siteId),
      uses,
      expires: new Date(opened.expiresAt).toISOString(),
      ...(warning === undefined ? {} : { warning }),
    }
  }

  async #renew(): Promise<void> {
    if (this.#node?.fork !== undefined) return
    await this.#signer
      .renew()
      .catch((error: Error) => this.#report({ type: 'warning', text: `metadata not renewed: ${error.message}` }))
  }
}

/** The master's methods of the control socket. On a machine that is not the master they refuse with STATE_NOT_MASTER. */
export function masterMethods(
  master: Master | undefined,
  { machine, node, held }: { machine: Machine; node: MeshNode; held: () => readonly HeldRelease[] },
): ServicePart {
  const required = (): Master => {
    if (master !== undefined) return master
    throw notMaster(machine.config)
  }
  return {
    methods: {
      invite: async (params) => required().invite(node, params),
      remove: async ({ name }) => required().remove(String(name)),
      rollback: async (params) => required().rollback(node, held(), params),
      layout: async (params) => required().layout(params),
      machines: async () => listMachines(admissionOf(required(), machine)),
      approve: async (params) => approve(admissionOf(required(), machine), params),
      refuse: async (params) => refuse(admissionOf(required(), machine), params),
    },
  }
}

function admissionOf(master: Master, { trust, config }: Machine): AdmissionDesk {
  master.assertOnlyOne()
  const { admission, approvals } = master
  const place = (params: Params): Place => knownPlace(placeOf(params, config.site), trust.view().members)
  return { admission, approvals, site: config.site, siteId: toHex(trust.siteId), place }
}

/** What an invitation binds whoever joins by it to. Errors: USAGE. */
function placeOf(params: Params, ownSite: string): Place {
  const { role = 'machine', site = ownSite, group = site } = params
  if (role !== 'machine' && role !== 'operator')
    throw new MeshError('USAGE', `${String(role)} is no role to invite as; there are machine and operator`)
  if (isPlaceName(site) && isPlaceName(group)) return { role, site, group }
  throw new MeshError('USAGE', 'the name of a site or a group has 1 to 128 printable characters')
}

/** The place as members spell it: `Lab-A` is the group `lab-a` if there is one, and not another group. */
function knownPlace({ role, site, group }: Place, members: readonly Member[]): Place {
  const its = findName(members, site, (member) => member.site)?.site ?? site
  const known = findName(members, group, (member) => member.group)?.group
  return { role, site: its, group: known ?? (group === site ? its : group) }
}

/** What is wrong with a token that no other machine can use; undefined if one can. */
function whyUseless(addresses: readonly string[]): string | undefined {
  const meansNothingElsewhere = /^\/ip4\/(127|169\.254)\.|^\/ip6\/(::1\/|fe[89ab])/
  if (!addresses.every((address) => meansNothingElsewhere.test(address))) return undefined
  const named = addresses.length === 0 ? 'no address of this machine' : `only ${addresses.join(', ')}`
  return `another machine cannot join by this token: it names ${named}. Connect this machine to the network, or start it with another --listen; then invite again, or name with --address where it is reached`
}
