import { MAX_MEMBERS } from '../../../protocol/constants.ts'
import { sameBytes } from '../../../protocol/digest.ts'
import type { EnrolReply, EnrolRequest, MachineFacts } from '../../../protocol/enrol-messages.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { findName, isMachineName, sameName } from '../../../protocol/names.ts'
import type { SigningKey } from '../../../protocol/signed-document.ts'
import type { Approval, ApprovalBook, ApprovalKey } from '../../trust/approvals.ts'
import { proveMaster } from '../../trust/master-proof.ts'
import { isMacAddress, type Member, type Place } from '../../trust/members.ts'
import type { RemovalBook } from '../../trust/removals.ts'
import type { SiteSigner } from '../../trust/site-signer.ts'
import type { TrustStore } from '../../trust/trust-store.ts'
import { APPROVAL_MS, ENROL_AGAIN_MS, ENROL_LATER_MS } from './limits.ts'
import { type Waiting, WaitingRoom } from './waiting-room.ts'

/** What an {@link Admission} works with. */
interface AdmissionOptions {
  readonly trust: TrustStore
  readonly signer: SiteSigner
  readonly approvals: ApprovalBook
  /** Keys that never come in again. */
  readonly removals: Pick<RemovalBook, 'refuse'>
  /** Peer id of the master. */
  readonly master: string
  /** The key of the site that vouches for the master: the one of its timestamps. */
  readonly voucher: () => SigningKey
  readonly site: string
  /** Throws why nobody is enrolled now, if that is so. */
  readonly mayEnrol: () => void
  /** Whether a member is connected now. */
  readonly isConnected: (id: string) => boolean
  readonly joined: (member: { id: string; name: string }) => void
  readonly now?: () => number
}

/** What an approval makes of a machine, or would. */
interface Weighed {
  readonly name: string
  readonly place: Place
  readonly wipe: boolean
  /** The member that it was before it lost its key; that key goes out. */
  readonly replaces?: Member
  /** Why it cannot be let in by this approval. */
  readonly problem?: MeshError
}

/** Somebody who waits, with what has been decided and what would become of it. */
export interface Candidate extends Waiting {
  readonly decision: 'waiting' | 'approved' | 'refused'
  readonly weighed: Weighed
}

/** What an approval says of the machine, before it is known when. */
export type Terms = Omit<Approval, 'decision' | 'at' | 'expiresAt'>

/**
 * The master's side of enrolling machines that have no token: they ask, somebody approves, and they are let in. What a machine says of
 * itself is believed only so far as somebody who has looked at it approves it.
 */
export class Admission {
  readonly #options: AdmissionOptions
  readonly #room: WaitingRoom
  readonly #now: () => number

  constructor(options: AdmissionOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#room = new WaitingRoom({ now: this.#now })
  }

  /** Answers one request of a peer at an IP address. Errors: TOKEN_OTHER_SITE, MEMBER_REMOVED, those of `mayEnrol`, and of signing. */
  async answer(id: string, request: EnrolRequest, address: string): Promise<EnrolReply> {
    const { trust, master, voucher, site } = this.#options
    if (!sameBytes(request.siteId, trust.siteId))
      throw new MeshError('TOKEN_OTHER_SITE', `this master serves another site, ${site}`)
    const { facts } = request
    if (facts === undefined) {
      const proof = proveMaster({ siteId: trust.siteId, master, machine: id }, voucher())
      return { type: 'enrol-reply', state: 'proven', proof }
    }
    if (!isMachineName(facts.name) || facts.mac.length === 0 || !facts.mac.every(isMacAddress))
      throw new MeshError('PROTOCOL_VIOLATION', `${id} tells neither a name nor network cards`)
    this.#options.removals.refuse(id)
    this.#options.mayEnrol()
    return this.#decide(id, facts, request.enrol === true, address)
  }

  /** Who waits, the longest first. */
  candidates(): Candidate[] {
    return this.#room.all().map((waiting) => {
      const found = this.#options.approvals.find(waiting.id, waiting.facts.mac)
      const decision = found === undefined ? 'waiting' : found.approval.decision === 'approve' ? 'approved' : 'refused'
      const terms = decision === 'approved' ? found!.approval : {}
      return { ...waiting, decision, weighed: this.weigh(waiting.id, waiting.facts, terms, found?.key) }
    })
  }

  /** What these terms would make of a machine. */
  weigh(id: string, facts: MachineFacts, terms: Terms, key?: ApprovalKey): Weighed {
    const { members } = this.#options.trust.view()
    const others = members.filter((member) => member.id !== id)
    const before = knownAs(facts, others)
    // A member asks once more if it did not hear the answer.
    const was = members.find((member) => member.id === id) ?? before
    const name = terms.name ?? was?.name ?? facts.name
    const site = terms.site ?? (terms.group === undefined ? was?.site : undefined) ?? this.#options.site
    const place = { role: 'machine', site, group: terms.group ?? was?.group ?? site } as const
    const wipe = terms.wipe === true
    const problem = this.#problem(facts, { name, terms, others, before, key })
    return {
      ...{ name, place, wipe },
      ...(before === undefined ? {} : { replaces: before }),
      ...(problem === undefined ? {} : { problem }),
    }
  }

  /** NAME_TAKEN, DISK_FOREIGN or SITE_FULL; undefined if nothing speaks against it. */
  #problem(
    { name: own, disk, holds }: MachineFacts,
    so: {
      readonly name: string
      readonly terms: Terms
      readonly others: readonly Member[]
      readonly before: Member | undefined
      readonly key: ApprovalKey | undefined
    },
  ): MeshError | undefined {
    const { name, terms, others, before, key } = so
    const namesake = findName(others, name, (member) => member.name)
    if (namesake !== undefined && namesake.id !== before?.id)
      return new MeshError(
        'NAME_TAKEN',
        `a machine named ${namesake.name} is already a member, with other network cards`,
      )
    if (before !== undefined && this.#options.isConnected(before.id))
      return new MeshError(
        'NAME_TAKEN',
        `${own} has a network card of ${before.name}, which is connected with another key`,
      )
    // Somebody was told of the key that goes out: by a list that names the card, or when the machine was approved.
    const isMeant = key === undefined || key.startsWith('mac:') || terms.replaces === before?.id
    if (before !== undefined && !isMeant)
      return new MeshError(
        'NAME_TAKEN',
        `${own} has a network card of ${before.name}, whose key would go out: approve it by its name`,
      )
    if (holds !== '' && terms.wipe !== true)
      return new MeshError(
        'DISK_FOREIGN',
        `${disk} of ${name} holds ${holds}, and the approval does not say that it may be wiped`,
      )
    if (others.length >= MAX_MEMBERS) return new MeshError('SITE_FULL', `the site has ${MAX_MEMBERS} members`)
    return undefined
  }

  async #decide(id: string, facts: MachineFacts, enrol: boolean, address: string): Promise<EnrolReply> {
    const type = 'enrol-reply'
    const found = this.#options.approvals.find(id, facts.mac)
    const member = this.#options.trust.view().memberById(id)
    const wiped = found?.key === `id:${id}` && found.approval.wipe === true
    if (member !== undefined && (facts.holds === '' || wiped)) {
      const { name, site, group } = member
      return { type, state: enrol ? 'enrolled' : 'approved', name, site, group, wipe: wiped }
    }
    if (found?.approval.decision === 'refuse') {
      this.#room.heard(id, facts, address)
      return { type, state: 'refused' }
    }
    const weighed = found === undefined ? undefined : this.weigh(id, facts, found.approval, found.key)
    if (found === undefined || weighed === undefined || weighed.problem !== undefined) {
      if (!this.#room.heard(id, facts, address)) return { type, state: 'later', waitMs: ENROL_LATER_MS }
      const why = weighed?.problem?.message
      return { type, state: 'waiting', waitMs: ENROL_AGAIN_MS, ...(why === undefined ? {} : { why }) }
    }
    const { name, place, wipe } = weighed
    if (enrol) await this.#enrol(id, facts, weighed, found.key)
    return { type, state: enrol ? 'enrolled' : 'approved', name, site: place.site, group: place.group, wipe }
  }

  /** Signs, then notes what the machine is told if it asks again; an approval by network card is used up. */
  async #enrol(id: string, facts: MachineFacts, weighed: Weighed, key: ApprovalKey): Promise<void> {
    const { name, place, wipe, replaces } = weighed
    const { signer, approvals, joined } = this.#options
    const at = this.#now()
    const { mac, serial } = facts
    const member = { id, name, ...place, mac, added: new Date(at).toISOString(), ...(serial === '' ? {} : { serial }) }
    await signer.addMember(member, { replaces: replaces?.id })
    const decided = { decision: 'approve', at, expiresAt: at + APPROVAL_MS, name, ...place, wipe } as const
    await approvals.put([[`id:${id}`, decided]], key.startsWith('mac:') ? [key] : [])
    this.#room.forget(id)
    joined({ id, name })
  }
}

/**
 * The member that a machine was before it lost its key: it has one of that member's network cards. Two computers that have a serial
 * number each, and not the same, are two: they share an adapter. Masters and operators' machines come back with a token only.
 */
function knownAs({ mac, serial }: MachineFacts, members: readonly Member[]): Member | undefined {
  const machines = members.filter(({ role }) => role === 'machine')
  const isOther = (member: Member): boolean => member.serial !== undefined && serial !== '' && member.serial !== serial
  const card = machines.find((member) => member.mac.some((one) => mac.includes(one)) && !isOther(member))
  if (card !== undefined) return card
  const same = serial === '' ? [] : machines.filter((member) => member.serial === serial)
  return same.length === 1 ? same[0] : undefined
}

/** Those of the candidates that a name or a code means. Errors: NOBODY_WAITS, USAGE if it means several. */
export function candidateOf(
  candidates: readonly Candidate[],
  { name, code }: { readonly name?: string | undefined; readonly code?: string | undefined },
): Candidate {
  const what = code === undefined ? `the name ${name}` : `the code ${code}`
  const found = candidates.filter((one) =>
    code === undefined ? sameName(one.weighed.name, name ?? '') : one.code === code,
  )
  const [only, other] = found
  if (only === undefined) throw new MeshError('NOBODY_WAITS', `no machine with ${what} waits to be enrolled`)
  if (other === undefined) return only
  const codes = found.map((one) => one.code).join(', ')
  throw new MeshError('USAGE', `${found.length} machines with ${what} wait: ${codes}; say which one by --code`)
}
