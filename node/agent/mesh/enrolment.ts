import { setTimeout as sleep } from 'node:timers/promises'
import { JOIN_PROTOCOL, MAX_MEMBERS, REQUEST_DEADLINE_MS } from '../../../protocol/constants.ts'
import { sameBytes, toHex } from '../../../protocol/digest.ts'
import type { EnrolReply, EnrolRequest } from '../../../protocol/enrol-messages.ts'
import { ERROR_CODES, type ErrorCode, isMeshError, MeshError } from '../../../protocol/errors.ts'
import type { JoinToken } from '../../../protocol/join-token.ts'
import type { Message } from '../../../protocol/messages.ts'
import { sameName } from '../../../protocol/names.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import type { InvitationBook } from '../../trust/invitations.ts'
import { isMacAddress } from '../../trust/members.ts'
import type { RemovalBook } from '../../trust/removals.ts'
import type { SiteSigner } from '../../trust/site-signer.ts'
import type { TrustStore } from '../../trust/trust-store.ts'
import type { Admission } from './admission.ts'
import { ENROL_PACE_MS, GUEST_MS } from './limits.ts'

type JoinRequest = Extract<Message, { type: 'join-request' }>

/**
 * The master's side of becoming a member: redeems invitations and signs the new member list, and passes on to `Admission` what machines
 * without a token ask. One enrolment at a time.
 */
export class Enrolment {
  readonly #trust: TrustStore
  readonly #signer: SiteSigner
  readonly #invitations: InvitationBook
  readonly #removals: Pick<RemovalBook, 'refuse'>
  readonly #site: string
  readonly #mayEnrol: () => void
  readonly #now: () => number
  readonly #joined: (member: { id: string; name: string }) => void
  readonly #admission: Pick<Admission, 'answer'>
  /** Peers that may read the metadata, and until when, of performance.now. */
  readonly #guests = new Map<string, number>()
  /** Who is being answered without a token, and when that is over. */
  readonly #asking = new Map<string, Promise<void>>()
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: {
    trust: TrustStore
    signer: SiteSigner
    invitations: InvitationBook
    removals: Pick<RemovalBook, 'refuse'>
    site: string
    /** Throws why nobody is enrolled now, if that is so. */
    mayEnrol?: () => void
    now?: () => number
    /** Answers machines that have no token. */
    admission: Pick<Admission, 'answer'>
    joined: (member: { id: string; name: string }) => void
  }) {
    this.#trust = options.trust
    this.#signer = options.signer
    this.#invitations = options.invitations
    this.#removals = options.removals
    this.#site = options.site
    this.#mayEnrol = options.mayEnrol ?? (() => undefined)
    this.#now = options.now ?? Date.now
    this.#joined = options.joined
    this.#admission = options.admission
  }

  /** Answers the requests on a stream of a peer at an IP address (docs/PROTOCOL.md, join protocol). */
  async serve(stream: FrameStream, address: string): Promise<void> {
    const { peerId } = stream
    for await (const message of stream.messages()) {
      if (message.type === 'join-request') {
        const reply = await this.#inTurn(() => this.#admit(peerId, message), { site: this.#site })
        await stream.send({ type: 'join-reply', ...reply })
      } else if (message.type === 'enrol-request') {
        await stream.send({ ...(await this.#answerStranger(peerId, message, address)), type: 'enrol-reply' })
      } else {
        throw new MeshError('PROTOCOL_VIOLATION', `${peerId} sent ${message.type} on the join protocol`)
      }
    }
  }

  /** One after the other; a fault of the world is an answer, too. */
  async #inTurn<T extends object, U extends object>(
    answer: () => Promise<T>,
    else_: U,
  ): Promise<T | (U & { error: { code: string; message: string } })> {
    const turn = this.#last.then(answer)
    this.#last = turn.catch(() => undefined)
    return turn.catch((reason: unknown) => {
      if (isMeshError(reason)) return { ...else_, error: { code: reason.code, message: reason.message } }
      throw reason
    })
  }

  /**
   * Whether a peer has asked a short while ago if it may join, and it may. It may read the signed metadata, so that it finds out
   * whether its disk and the image go together before it becomes a member.
   */
  isGuest(id: string): boolean {
    return (this.#guests.get(id) ?? 0) > performance.now()
  }

  /** Says what the peer becomes. It becomes that, unless it only asked. The use of the invitation is counted last: for members only. */
  async #admit(id: string, request: JoinRequest): Promise<{ site: string; role: string; checked: boolean }> {
    if (!sameBytes(request.siteId, this.#trust.siteId)) {
      throw new MeshError(
        'TOKEN_OTHER_SITE',
        `this master serves site ${this.#site} (${toHex(this.#trust.siteId).slice(0, 8)})`,
      )
    }
    this.#mayEnrol()
    const others = this.#trust.view().members.filter((member) => member.id !== id)
    const namesake = others.find(({ name }) => sameName(name, request.name))
    if (namesake !== undefined) {
      throw new MeshError('NAME_TAKEN', `a machine named ${namesake.name} is already a member of ${this.#site}`)
    }
    if (!request.mac.every(isMacAddress)) throw new MeshError('PROTOCOL_VIOLATION', `${id} told of no network cards`)
    const place = await this.#invitations.check(request.secret, id)
    this.#removals.refuse(id)
    const { role, site, group } = place ?? { role: 'machine', site: this.#site, group: this.#site }
    if (request.check === true) {
      if (others.length >= MAX_MEMBERS) throw new MeshError('SITE_FULL', `the site has ${MAX_MEMBERS} members`)
      this.#receive(id)
      return { site, role, checked: true }
    }
    const added = new Date(this.#now()).toISOString()
    await this.#signer.addMember({ id, name: request.name, role, site, group, mac: request.mac, added })
    await this.#invitations.redeem(request.secret, id)
    this.#joined({ id, name: request.name })
    return { site, role, checked: false }
  }

  /** A stranger that asks as fast as it can, or on several streams at once, is slowed down. */
  async #answerStranger(id: string, request: EnrolRequest, address: string): Promise<Omit<EnrolReply, 'type'>> {
    const before = this.#asking.get(id) ?? Promise.resolve()
    const turn = before
      .then(() => sleep(ENROL_PACE_MS))
      .then(() => this.#inTurn(() => this.#ask(id, request, address), { state: 'later' } as const))
    const over = turn.then(
      () => undefined,
      () => undefined,
    )
    this.#asking.set(id, over)
    void over.then(() => this.#asking.get(id) === over && this.#asking.delete(id))
    return turn
  }

  /** Whoever is approved may look at the signed metadata before it enrols, as one with a token may. */
  async #ask(id: string, request: EnrolRequest, address: string): Promise<EnrolReply> {
    const reply = await this.#admission.answer(id, request, address)
    if (reply.state === 'approved') this.#receive(id)
    return reply
  }

  #receive(id: string): void {
    const now = performance.now()
    for (const [guest, until] of this.#guests) if (until <= now) this.#guests.delete(guest)
    this.#guests.set(id, now + GUEST_MS)
  }
}

/** What the master says to a request to join. */
interface EnrolmentReply {
  readonly site: string
  /** Absent from the replies of earlier versions. */
  readonly role?: string | undefined
  /** True: nobody was enrolled, it was only asked. Earlier versions enrol whoever asks. */
  readonly checked: boolean
}

/**
 * The joiner's side: asks the master named in the token to be enrolled, or with `check` only whether it would be.
 * Errors: those of the master (NAME_TAKEN, TOKEN_EXPIRED and others), REQUEST_TIMEOUT, PROTOCOL_VIOLATION.
 */
export async function requestEnrolment(
  open: (protocol: string) => Promise<FrameStream>,
  token: JoinToken,
  machine: { name: string; mac: readonly string[]; check?: boolean },
): Promise<EnrolmentReply> {
  const stream = await open(JOIN_PROTOCOL)
  const timer = setTimeout(
    () => stream.abort(new MeshError('REQUEST_TIMEOUT', 'the master did not answer the join request')),
    REQUEST_DEADLINE_MS,
  )
  try {
    await stream.send({ type: 'join-request', siteId: token.siteId, secret: token.secret, ...machine })
    for await (const message of stream.messages()) {
      if (message.type !== 'join-reply') break
      const { site, role, checked = false } = message
      if (message.error === undefined) return { site, role, checked }
      throw new MeshError(knownCode(message.error.code), message.error.message)
    }
    throw new MeshError('PROTOCOL_VIOLATION', 'the master closed the join request without an answer')
  } finally {
    clearTimeout(timer)
    stream.abort(new MeshError('INTERRUPTED', 'join request done'))
  }
}

/** The master's word decides the message; a code this version does not know is still a refusal. */
export function knownCode(code: string): ErrorCode {
  return ERROR_CODES.find((known) => known === code) ?? 'NOT_A_MEMBER'
}
