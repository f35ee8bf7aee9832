import { JOIN_PROTOCOL, REQUEST_DEADLINE_MS } from '../../../protocol/constants.ts'
import { sameBytes, toHex } from '../../../protocol/digest.ts'
import { ERROR_CODES, type ErrorCode, isMeshError, MeshError } from '../../../protocol/errors.ts'
import type { JoinToken } from '../../../protocol/join-token.ts'
import type { Message } from '../../../protocol/messages.ts'
import { sameName } from '../../../protocol/names.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import type { InvitationBook } from '../../trust/invitations.ts'
import { isMacAddress } from '../../trust/members.ts'
import type { SiteSigner } from '../../trust/site-signer.ts'
import type { TrustStore } from '../../trust/trust-store.ts'

type JoinRequest = Extract<Message, { type: 'join-request' }>

/** The master's side of joining: redeems invitations and signs the new member list. One enrolment at a time. */
export class Enrolment {
  readonly #trust: TrustStore
  readonly #signer: SiteSigner
  readonly #invitations: InvitationBook
  readonly #site: string
  readonly #now: () => number
  readonly #joined: (member: { id: string; name: string }) => void
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: {
    trust: TrustStore
    signer: SiteSigner
    invitations: InvitationBook
    site: string
    now?: () => number
    joined: (member: { id: string; name: string }) => void
  }) {
    this.#trust = options.trust
    this.#signer = options.signer
    this.#invitations = options.invitations
    this.#site = options.site
    this.#now = options.now ?? Date.now
    this.#joined = options.joined
  }

  /** Answers the join request on a stream (docs/PROTOCOL.md, join protocol). */
  async serve(stream: FrameStream): Promise<void> {
    for await (const message of stream.messages()) {
      if (message.type !== 'join-request') {
        throw new MeshError('PROTOCOL_VIOLATION', `${stream.peerId} sent ${message.type} on the join protocol`)
      }
      const turn = this.#last.then(() => this.#admit(stream.peerId, message))
      this.#last = turn.catch(() => undefined)
      const reply = await turn.then(
        (site) => ({ site }),
        (reason: unknown) => {
          if (isMeshError(reason)) return { site: this.#site, error: { code: reason.code, message: reason.message } }
          throw reason
        },
      )
      await stream.send({ type: 'join-reply', ...reply })
    }
  }

  /** Returns the name of the site that the new member stands in. */
  async #admit(id: string, request: JoinRequest): Promise<string> {
    if (!sameBytes(request.siteId, this.#trust.siteId)) {
      throw new MeshError(
        'TOKEN_OTHER_SITE',
        `this master serves site ${this.#site} (${toHex(this.#trust.siteId).slice(0, 8)})`,
      )
    }
    const others = this.#trust.view().members.filter((member) => member.id !== id)
    const namesake = others.find(({ name }) => sameName(name, request.name))
    if (namesake !== undefined) {
      throw new MeshError('NAME_TAKEN', `a machine named ${namesake.name} is already a member of ${this.#site}`)
    }
    if (!request.mac.every(isMacAddress)) throw new MeshError('PROTOCOL_VIOLATION', `${id} told of no network cards`)
    const place = await this.#invitations.redeem(request.secret, id)
    const { role, site, group } = place ?? { role: 'machine', site: this.#site, group: this.#site }
    const added = new Date(this.#now()).toISOString()
    await this.#signer.addMember({ id, name: request.name, role, site, group, mac: request.mac, added })
    this.#joined({ id, name: request.name })
    return site
  }
}

/** The joiner's side: asks the master named in the token to be enrolled. Returns the name of the site. */
export async function requestEnrolment(
  open: (protocol: string) => Promise<FrameStream>,
  token: JoinToken,
  machine: { name: string; mac: readonly string[] },
): Promise<string> {
  const stream = await open(JOIN_PROTOCOL)
  const timer = setTimeout(
    () => stream.abort(new MeshError('REQUEST_TIMEOUT', 'the master did not answer the join request')),
    REQUEST_DEADLINE_MS,
  )
  try {
    await stream.send({ type: 'join-request', siteId: token.siteId, secret: token.secret, ...machine })
    for await (const message of stream.messages()) {
      if (message.type !== 'join-reply') break
      if (message.error === undefined) return message.site
      throw new MeshError(knownCode(message.error.code), message.error.message)
    }
    throw new MeshError('PROTOCOL_VIOLATION', 'the master closed the join request without an answer')
  } finally {
    clearTimeout(timer)
    stream.abort(new MeshError('INTERRUPTED', 'join request done'))
  }
}

/** The master's word decides the message; a code this version does not know is still a refusal. */
function knownCode(code: string): ErrorCode {
  return ERROR_CODES.find((known) => known === code) ?? 'NOT_A_MEMBER'
}
