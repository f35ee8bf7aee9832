import { setTimeout as sleep } from 'node:timers/promises'
import { toHex } from '../../../protocol/digest.ts'
import { checkDocument } from '../../../protocol/document.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { encodeJoinToken } from '../../../protocol/join-token.ts'
import { findName, isPlaceName } from '../../../protocol/names.ts'
import { APPROVAL, ApprovalBook } from '../../trust/approvals.ts'
import { INVITATION, InvitationBook } from '../../trust/invitations.ts'
import { lentKeys } from '../../trust/key-file.ts'
import { type MachineKey, machineKeyOf } from '../../trust/machine-key.ts'
import type { Member, Place } from '../../trust/members.ts'
import { REMOVAL, RemovalBook } from '../../trust/removals.ts'
import { keysOf, SiteKeys } from '../../trust/site-keys.ts'
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
import { changeKeys } from '../site/change-keys.ts'
import { type AdmissionDesk, approve, listMachines, refuse } from './admission-desk.ts'
import type { Invited } from './ask-running.ts'
import { describeInvitation, type Invitations, REVOKE, type Revoked } from './invitation-desk.ts'
import { RENEW_TICK_MS, TERM_TICK_MS } from './limits.ts'

type Params = Readonly<Record<string, unknown>>

/** What the state directory of a master has, and no other. */
interface Keys {
  readonly signer: SiteSigner
  readonly invitations: InvitationBook
  readonly approvals: ApprovalBook
  readonly removals: RemovalBook
  readonly voucher: MachineKey
}

/** What only the master does while it runs: it invites and enrols machines, removes them, and signs what changes. */
export class Master {
  readonly #machine: Machine
  readonly #signer: SiteSigner
  readonly #invitations: InvitationBook
  readonly #removals: RemovalBook
  /** The key that vouches for this master: one of the timestamps. */
  #voucher: MachineKey
  readonly #report: (event: AgentEvent) => void
  #node: Pick<MeshNode, 'fork' | 'connectedMembers'> | undefined
  /** That another master signs for the site since, or that this one has not begun; METADATA_FORKED. */
  #superseded: MeshError | undefined
  /** Who asks to be enrolled without a token, and what was decided. */
  readonly admission: Admission
  readonly approvals: ApprovalBook
  /** How the master's node answers strangers: whether they may connect, and their requests to join. */
  readonly enrolment: NonNullable<MeshNodeOptions['enrolment']>

  private constructor(
    machine: Machine,
    { signer, invitations, approvals, removals, voucher }: Keys,
    report: (event: AgentEvent) => void,
  ) {
    this.#machine = machine
    this.#signer = signer
    this.#voucher = voucher
    this.#removals = removals
    this.#invitations = invitations
    this.approvals = approvals
    this.#report = report
    const { trust, config } = machine
    const joined = (member: { id: string; name: string }): void => report({ type: 'member', ...member })
    const mayEnrol = (): void => this.assertOnlyOne()
    const isConnected = (id: string): boolean => this.#node?.connectedMembers().some((one) => one.id === id) === true
    const common = { trust, signer, removals, site: config.site, mayEnrol, joined }
    this.admission = new Admission({
      ...common,
      approvals,
      voucher: () => this.#voucher,
      master: config.id,
      isConnected,
    })
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
    const removals = await RemovalBook.load(state.shelf('removed', REMOVAL), trust)
    const voucher = await voucherOf(machine)
    const master = new Master(machine, { signer, invitations, approvals, removals, voucher }, report)
    await master.#lookForOther()
    return master
  }

  /** Renews the metadata, now and every RENEW_TICK_MS until the stack ends. */
  async renewNowAndThen(stack: AsyncDisposableStack): Promise<void> {
    stack.defer(this.#machine.trust.onChange(() => void this.#look()))
    // What was published meanwhile may have settled who signs.
    await this.#look()
    if (this.#superseded === undefined) await this.#signer.renew()
    const timer = setInterval(() => void this.#renew(), RENEW_TICK_MS)
    stack.adopt(timer, clearInterval)
  }

  /**
   * Begins the term of a master that was put back from a backup, as soon as a machine of the site has told what was signed since, or at
   * once if it is the only one. Ends when that is done, or the signal aborts.
   */
  async beginTerm(node: MeshNode, signal: AbortSignal): Promise<void> {
    const others = this.#machine.trust.view().members.length - 1
    while (this.#superseded !== undefined && !signal.aborted) {
      const heard = node.clockOffsets(Date.now()).length
      if (heard > 0 || others === 0) {
        await node.metadataSettled()
        if (node.fork === undefined && (await this.#signer.claim())) {
          await this.#lookForOther()
          this.#report({ type: 'note', text: 'this master signs for the site from now on' })
          return
        }
      }
      await sleep(TERM_TICK_MS, undefined, { signal }).catch(() => undefined)
    }
  }

  /** From now on nothing is signed if that node hears that another machine signs with the keys of this one. */
  heed(node: Pick<MeshNode, 'fork' | 'connectedMembers'>): void {
    this.#node = node
  }

  /** Errors: METADATA_FORKED if another machine signs for the site. */
  assertOnlyOne(): void {
    const other = this.#node?.fork ?? this.#superseded
    if (other !== undefined) throw other
  }

  /** Takes a machine out of the site. Errors: NOT_A_MEMBER, METADATA_FORKED. */
  async remove(name: string): Promise<{ event: 'removed'; name: string; id: string }> {
    this.assertOnlyOne()
    const { id, name: known } = await this.#signer.removeMember(name)
    await this.#removals.note()
    return { event: 'removed', name: known, id }
  }

  /** Signs how the disks of bare machines are laid out. Errors: METADATA_FORKED, and those of {@link publishLayout}. */
  async layout(params: Params): ReturnType<typeof publishLayout> {
    this.assertOnlyOne()
    return publishLayout(params, { trust: this.#machine.trust, signer: await this.#signerWith(params) })
  }

  /** Publishes an earlier release again. Errors: those of {@link publishEarlier}. */
  async rollback(node: MeshNode, held: readonly HeldRelease[], params: Params): ReturnType<typeof publishEarlier> {
    this.assertOnlyOne()
    const request = rollbackRequest(params)
    const { image = this.#machine.config.image } = request
    const source = held.find(({ manifest }) => manifest.image === image)?.source
    return publishEarlier(request, { machine: this.#machine, signer: await this.#signerWith(params), node, source })
  }

  /** The invitations that are remembered, and who has joined by them. */
  async invitations(): Promise<Invitations> {
    const { trust } = this.#machine
    const all = await this.#invitations.all()
    return { event: 'invitations', invitations: all.map((known) => describeInvitation(known, trust.view())) }
  }

  /** Takes invitations back: the open one whose id begins so, or all. Errors: TOKEN_UNKNOWN, USAGE. */
  async revoke(params: Params): Promise<Revoked> {
    const { id: prefix, dryRun } = checkDocument(REVOKE, params)
    const { trust } = this.#machine
    const open = (await this.#invitations.all()).filter(({ state }) => state === 'open')
    const meant = prefix === 'all' ? open : open.filter(({ id }) => id.startsWith(prefix.toLowerCase()))
    if (prefix !== 'all' && meant.length === 0)
      throw new MeshError('TOKEN_UNKNOWN', `no invitation that can still be used begins with ${prefix}`)
    if (prefix !== 'all' && meant.length > 1)
      throw new MeshError('USAGE', `${meant.length} invitations begin with ${prefix}: give more of its digits`)
    if (!dryRun) for (const { id } of meant) await this.#invitations.revoke(id)
    return { event: 'revoked', dryRun, invitations: meant.map((known) => describeInvitation(known, trust.view())) }
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

  /** The signer, with the keys that another command of this computer lends. Errors: USAGE, and those of the keys. */
  async #signerWith({ lent }: Params): Promise<SiteSigner> {
    const { trust, state } = this.#machine
    return SiteSigner.open({ keysDir: state.path('keys'), trust, given: lentKeys(lent) })
  }

  /** What may be otherwise after a change of the metadata. */
  async #look(): Promise<void> {
    await this.#lookForOther()
    this.#voucher = await voucherOf(this.#machine).catch(() => this.#voucher)
  }

  /** Notices whether another master signs for the site since this one was put back, or this one was copied. */
  async #lookForOther(): Promise<void> {
    const before = this.#superseded
    this.#superseded = await this.#signer.superseded().catch(() => before)
    const { message, advice } = this.#superseded ?? {}
    if (message !== undefined && message !== before?.message)
      this.#report({ type: 'warning', text: `${message}. ${advice}` })
  }

  async #renew(): Promise<void> {
    if (this.#node?.fork !== undefined || this.#superseded !== undefined) return
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
      invitations: async () => required().invitations(),
      revoke: async (params) => required().revoke(params),
      'site-keys': async (params) => {
        required().assertOnlyOne()
        return changeKeys(machine, params)
      },
      remove: async ({ name }) => required().remove(String(name)),
      rollback: async (params) => required().rollback(node, held(), params),
      layout: async (params) => required().layout(params),
      machines: async () => listMachines(admissionOf(required(), machine)),
      approve: async (params) => approve(admissionOf(required(), machine), params),
      refuse: async (params) => refuse(admissionOf(required(), machine), params),
    },
  }
}

/** Errors: SITE_KEY_MISSING, and those of the keys. */
async function voucherOf({ trust, state }: Machine): Promise<MachineKey> {
  const keys = await SiteKeys.load(state.path('keys'))
  const [own] = keys.signers('timestamp', keysOf(await trust.roles(), 'timestamp'))
  return machineKeyOf(own!.privateKey)
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
