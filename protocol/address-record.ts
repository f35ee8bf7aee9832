import {
  ADDRESS_RECORD_MS,
  CLOCK_TOLERANCE_MS,
  MAX_ADDRESS_RECORD_BYTES,
  MAX_ADDRESSES_PER_PEER,
  MAX_TEXT_BYTES,
} from './constants.ts'
import { anyText, list, natural, object, type Shaped } from './json-shape.ts'
import type { SignedAddresses } from './message-parts.ts'
import { readSigned, type SigningKey, signDocument } from './signed-document.ts'

const record = {
  /** Multiaddrs, at most {@link MAX_ADDRESSES_PER_PEER}. */
  addresses: list(anyText(MAX_TEXT_BYTES), MAX_ADDRESSES_PER_PEER),
  /** When it was signed, by the clock of the machine, Unix ms. */
  at: natural(),
}

/** Where a machine says that it is reached, and since when. */
type AddressRecord = Shaped<typeof record>

const DOCUMENT = { name: 'signed addresses', shape: object(record), fault: 'PROTOCOL_VIOLATION' } as const

/** Signs where a machine is reached; of more addresses than MAX_ADDRESS_RECORD_BYTES holds the last ones are left out. */
export function signAddresses({ addresses, at }: AddressRecord, key: SigningKey): SignedAddresses {
  const told = addresses.slice(0, MAX_ADDRESSES_PER_PEER)
  const textOf = (): string => JSON.stringify({ addresses: told, at })
  while (Buffer.byteLength(textOf()) > MAX_ADDRESS_RECORD_BYTES) told.pop()
  const { text, signature } = signDocument('addresses', textOf(), key)
  return { text, signature }
}

/**
 * What a machine has signed of its addresses; undefined if `by` has not signed it, if it is older than ADDRESS_RECORD_MS, or from further in the
 * future than CLOCK_TOLERANCE_MS. `by`: peer id, which contains the key; `now`: Unix ms. Errors: FORMAT_NEWER.
 */
export function readAddresses(by: string, signed: SignedAddresses, now: number): AddressRecord | undefined {
  const read = readSigned('addresses', { by, ...signed }, DOCUMENT)
  if (read === undefined || read.at > now + CLOCK_TOLERANCE_MS || read.at < now - ADDRESS_RECORD_MS) return undefined
  return read
}
