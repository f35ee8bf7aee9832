import { readAddresses, signAddresses } from '../../../protocol/address-record.ts'
import { ADDRESS_RECORD_MS } from '../../../protocol/constants.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { PeerAddresses, SignedAddresses } from '../../../protocol/message-parts.ts'
import type { SigningKey } from '../../../protocol/signed-document.ts'
import { SIGN_ADDRESSES_AGAIN_MS } from './limits.ts'

/** A record, and when it was signed, Unix ms. */
interface Known {
  readonly record: SignedAddresses
  readonly at: number
}

/**
 * Where members say that they are reached, each by its own signature: the newest record of each, in memory, at most
 * MAX_ADDRESS_RECORD_BYTES of a member.
 */
export class AddressBook {
  readonly #key: SigningKey
  readonly #now: () => number
  readonly #known = new Map<string, Known>()
  #own: (Known & { readonly addresses: string }) | undefined

  /** `key`: of this machine; `now`: Unix ms. */
  constructor(key: SigningKey, now: () => number = Date.now) {
    this.#key = key
    this.#now = now
  }

  /** What this machine signs of its own addresses: anew if they are others than before, and once a day. */
  own(addresses: readonly string[]): SignedAddresses {
    const now = this.#now()
    const text = addresses.join()
    if (this.#own?.addresses !== text || Math.abs(now - this.#own.at) > SIGN_ADDRESSES_AGAIN_MS)
      this.#own = { addresses: text, at: now, record: signAddresses({ addresses, at: now }, this.#key) }
    return this.#own.record
  }

  /** Somebody passes on what a member has signed. Returns its addresses if that is so, and newer than what was known; else undefined. */
  hear(peerId: string, record: SignedAddresses): readonly string[] | undefined {
    const known = this.#known.get(peerId)
    if (known?.record.text === record.text) return undefined
    const read = readRecord(peerId, record, this.#now())
    if (read === undefined || (known !== undefined && read.at <= known.at)) return undefined
    this.#known.set(peerId, { record, at: read.at })
    return read.addresses
  }

  /** What a member has signed, to be passed on; undefined if nothing is known, or it is too old by now. */
  recordOf(peerId: string): SignedAddresses | undefined {
    const known = this.#known.get(peerId)
    return known !== undefined && known.at > this.#now() - ADDRESS_RECORD_MS ? known.record : undefined
  }

  /** What a peer says of others counts as far as they have signed it themselves. Returns what is new of those that are `known`. */
  hearAll(
    list: readonly PeerAddresses[],
    isKnown: (peerId: string) => boolean,
  ): { id: string; addresses: readonly string[] }[] {
    return list.flatMap(({ id, record }) => {
      // Anybody can make ids up.
      const addresses = record === undefined || !isKnown(id) ? undefined : this.hear(id, record)
      return addresses === undefined ? [] : [{ id, addresses }]
    })
  }

  /** Adds what a member has signed to what is told of it. Versions before 2026-12-01 read the addresses. */
  withRecord(peer: PeerAddresses): PeerAddresses {
    const record = this.recordOf(peer.id)
    return record === undefined ? peer : { ...peer, record }
  }

  /** Forgets those that are members no longer. */
  keep(isMember: (peerId: string) => boolean): void {
    for (const peerId of this.#known.keys()) if (!isMember(peerId)) this.#known.delete(peerId)
  }
}

/** What a later version has signed, in a format that this one cannot read, is passed over. */
function readRecord(peerId: string, record: SignedAddresses, now: number): ReturnType<typeof readAddresses> {
  try {
    return readAddresses(peerId, record, now)
  } catch (error) {
    if (isMeshError(error, 'FORMAT_NEWER')) return undefined
    throw error
  }
}
