import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { digestOf, toHex } from '../../protocol/digest.ts'
import type { DocumentShape } from '../../protocol/document.ts'
import { MeshError } from '../../protocol/errors.ts'
import { TOKEN_SECRET_BYTES } from '../../protocol/join-token.ts'
import { list, literal, natural, object, optional, text } from '../../protocol/json-shape.ts'
import { formatTime } from '../../protocol/local-time.ts'
import { isPlaceName } from '../../protocol/names.ts'
import type { Place } from './members.ts'

/** What the master remembers of an invitation. The secret itself is in the token only. */
export interface Invitation {
  /** Unix ms. */
  readonly expiresAt: number
  /** Unix ms; invitations of an earlier version lack it. */
  readonly issuedAt?: number
  readonly uses: number
  /** Peer ids that redeemed it. */
  readonly redeemedBy: readonly string[]
  /** When it was taken back; Unix ms. */
  readonly revokedAt?: number
  /**
   * What a machine becomes that joins by it. Invitations of an earlier version lack it: they make a machine of the
   * master's site.
   */
  readonly place?: Place
}

/** An invitation as it is stored. */
export const INVITATION: DocumentShape<Invitation> = {
  name: 'an invitation',
  shape: object({
    expiresAt: natural(),
    issuedAt: optional(natural()),
    uses: natural(),
    redeemedBy: list(text(MAX_TEXT_BYTES), Number.MAX_SAFE_INTEGER),
    revokedAt: optional(natural()),
    place: optional(object({ role: literal('operator', 'machine'), site: isPlaceName, group: isPlaceName })),
  }),
  fault: 'STATE_CORRUPT',
}

/** Whether an invitation can still be used, and else why not. */
type InvitationState = 'open' | 'used up' | 'expired' | 'revoked'

/** An invitation with its id, the SHA-256 of its secret in hexadecimal. The id lets nobody in. */
interface KnownInvitation {
  readonly id: string
  readonly invitation: Invitation
  readonly state: InvitationState
}

/** Keeps invitations: the state database, by the SHA-256 of the secret in hexadecimal. */
export interface InvitationShelf {
  get(key: string): Promise<Invitation | undefined>
  putDurable(key: string, value: Invitation): Promise<void>
  del(key: string): Promise<void>
  iterator(): AsyncIterable<[string, Invitation]>
}

/** Time that an expired invitation is remembered, so that its user is told "expired" and not "unknown". */
const REMEMBERED_MS = 7 * 24 * 3600 * 1000

/** Short-lived permissions to become a member. */
export class InvitationBook {
  readonly #shelf: InvitationShelf
  readonly #now: () => number
  readonly #random: (bytes: number) => Uint8Array
  /** Redemptions take turns: two machines must not both get the last use. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(shelf: InvitationShelf, now: () => number, random: (bytes: number) => Uint8Array) {
    this.#shelf = shelf
    this.#now = now
    this.#random = random
  }

  static async load(
    shelf: InvitationShelf,
    options: { now?: () => number; random?: (bytes: number) => Uint8Array } = {},
  ): Promise<InvitationBook> {
    const book = new InvitationBook(shelf, options.now ?? Date.now, options.random ?? randomBytes)
    for await (const [key, invitation] of shelf.iterator()) {
      if (invitation.expiresAt + REMEMBERED_MS < book.#now()) await shelf.del(key)
    }
    return book
  }

  /** Makes an invitation for `uses` machines that ends after `ttlMs`. Only the result holds the secret. */
  async open(options: {
    ttlMs: number
    uses: number
    place?: Place
  }): Promise<{ secret: Uint8Array; issuedAt: number; expiresAt: number }> {
    // A time that is not a number would never be over.
    assert(Number.isSafeInteger(options.ttlMs) && options.ttlMs > 0, 'an invitation needs an end')
    assert(Number.isSafeInteger(options.uses) && options.uses > 0, 'an invitation needs a number of uses')
    const secret = this.#random(TOKEN_SECRET_BYTES)
    const issuedAt = this.#now()
    const expiresAt = issuedAt + options.ttlMs
    const place = options.place === undefined ? {} : { place: options.place }
    await this.#shelf.putDurable(keyOf(secret), { expiresAt, issuedAt, uses: options.uses, redeemedBy: [], ...place })
    return { secret, issuedAt, expiresAt }
  }

  /**
   * Whether `peerId` may use the invitation, or has used it; uses up nothing. Returns what the invitation makes of the peer, if it
   * says so. Errors: TOKEN_UNKNOWN, TOKEN_REVOKED, TOKEN_EXPIRED, TOKEN_USED_UP.
   */
  async check(secret: Uint8Array, peerId: string): Promise<Place | undefined> {
    return (await this.#usable(secret, peerId)).place
  }

  /** All invitations that are remembered, the newest first, each with its id. */
  async all(): Promise<KnownInvitation[]> {
    const all: KnownInvitation[] = []
    for await (const [id, invitation] of this.#shelf.iterator())
      all.push({ id, invitation, state: stateOf(invitation, this.#now()) })
    return all.sort((a, b) => (b.invitation.issuedAt ?? 0) - (a.invitation.issuedAt ?? 0) || (a.id < b.id ? -1 : 1))
  }

  /** Takes an invitation back, durably: nobody becomes a member by it any more. Whoever has joined stays. */
  revoke(id: string): Promise<void> {
    return this.#inTurn(async () => {
      const invitation = await this.#shelf.get(id)
      if (invitation === undefined || invitation.revokedAt !== undefined) return
      await this.#shelf.putDurable(id, { ...invitation, revokedAt: this.#now() })
    })
  }

  /**
   * Uses up one use for `peerId`. A peer that asks again, because its reply was lost, does not use up another. Returns
   * what the invitation makes of the peer, if it says so. Errors: as {@link check}.
   */
  redeem(secret: Uint8Array, peerId: string): Promise<Place | undefined> {
    return this.#inTurn(() => this.#redeem(secret, peerId))
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(run)
    this.#last = turn.catch(() => undefined)
    return turn
  }

  async #redeem(secret: Uint8Array, peerId: string): Promise<Place | undefined> {
    const invitation = await this.#usable(secret, peerId)
    if (invitation.redeemedBy.includes(peerId)) return invitation.place
    await this.#shelf.putDurable(keyOf(secret), { ...invitation, redeemedBy: [...invitation.redeemedBy, peerId] })
    return invitation.place
  }

  async #usable(secret: Uint8Array, peerId: string): Promise<Invitation> {
    const invitation = await this.#shelf.get(keyOf(secret))
    if (invitation === undefined) throw new MeshError('TOKEN_UNKNOWN', 'the master knows no such invitation')
    if (invitation.revokedAt !== undefined)
      throw new MeshError('TOKEN_REVOKED', `the invitation was taken back at ${formatTime(invitation.revokedAt)}`)
    if (invitation.expiresAt <= this.#now()) {
      throw new MeshError('TOKEN_EXPIRED', `the invitation expired at ${formatTime(invitation.expiresAt)}`)
    }
    const { redeemedBy, uses } = invitation
    if (redeemedBy.length >= uses && !redeemedBy.includes(peerId))
      throw new MeshError('TOKEN_USED_UP', `the invitation was for ${uses} machines, which have joined`)
    return invitation
  }
}

function stateOf({ revokedAt, expiresAt, redeemedBy, uses }: Invitation, now: number): InvitationState {
  if (revokedAt !== undefined) return 'revoked'
  if (expiresAt <= now) return 'expired'
  return redeemedBy.length >= uses ? 'used up' : 'open'
}

function keyOf(secret: Uint8Array): string {
  return toHex(digestOf(secret))
}
