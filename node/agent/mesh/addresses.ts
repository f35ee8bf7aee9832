import { MAX_ADDRESSES_PER_PEER, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { anyText, list } from '../../../protocol/json-shape.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'

const isAddresses = list(anyText(MAX_TEXT_BYTES), MAX_ADDRESSES_PER_PEER)

/** Addresses at which peers were found, by peer id. */
export function addressesOf(state: StateDirectory): Shelf<readonly string[]> {
  return state.hints('addresses', storedDocument('the addresses of a peer', isAddresses))
}
