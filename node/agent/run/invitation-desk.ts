import { MAX_MEMBERS, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { list, literal, natural, object, optional, text, time, truth } from '../../../protocol/json-shape.ts'
import type { InvitationBook } from '../../trust/invitations.ts'
import type { TrustView } from '../../trust/trusted-view.ts'
import { MAX_INVITATIONS } from './limits.ts'

const words = text(MAX_TEXT_BYTES)

const isOne = object({
  id: words,
  state: literal('open', 'used up', 'expired', 'revoked'),
  uses: natural(),
  /** Names of the machines that have joined by it, or their peer ids if they are no members any more. */
  usedBy: list(words, MAX_MEMBERS),
  issued: optional(time),
  expires: time,
  role: optional(words),
  site: optional(words),
  group: optional(words),
})

type Of<C> = C extends (value: unknown) => value is infer T ? T : never
/** One line of `mesh invite --list`. */
type ShownInvitation = Of<typeof isOne>

/** The answer to `invitations`. */
export const isInvitations = object({ event: literal('invitations'), invitations: list(isOne, MAX_INVITATIONS) })
/** Result of `mesh invite --list`. */
export type Invitations = Of<typeof isInvitations>

/** The answer to `revoke`. */
export const isRevoked = object({ event: literal('revoked'), dryRun: truth, invitations: list(isOne, MAX_INVITATIONS) })
/** Result of `mesh invite --revoke`: what was taken back, or would be. */
export type Revoked = Of<typeof isRevoked>

/** What `revoke` takes. */
export const REVOKE = { name: 'the request', fault: 'USAGE', shape: object({ id: words, dryRun: truth }) } as const

/** An invitation as people are shown it. */
export function describeInvitation(
  { id, invitation, state }: Awaited<ReturnType<InvitationBook['all']>>[number],
  view: TrustView,
): ShownInvitation {
  const { uses, redeemedBy, issuedAt, expiresAt, place } = invitation
  return {
    id,
    state,
    uses,
    usedBy: redeemedBy.map((peer) => view.memberById(peer)?.name ?? peer),
    ...(issuedAt === undefined ? {} : { issued: new Date(issuedAt).toISOString() }),
    expires: new Date(expiresAt).toISOString(),
    ...place,
  }
}
