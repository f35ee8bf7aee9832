import { type Digest, sameBytes, toHex } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import type { HeldImage, MetadataVersions, RunningNode, SignedAddresses } from '../../protocol/message-parts.ts'
import type { Message } from '../../protocol/messages.ts'
import { SESSION_CREDIT_BYTES } from './limits.ts'

/** Versions of the exchange this code speaks. */
const VERSION_MIN = 2
const VERSION_MAX = 3
/** The first version in which a client may tell what it fetches over the uplink. */
export const VERSION_FETCHING = 3

/** What a node says of itself in its hello. */
export interface LocalFacts {
  readonly siteId: Digest
  readonly name: string
  readonly metadata: MetadataVersions
  readonly addresses: readonly string[]
  readonly held: readonly HeldImage[]
  /** What the clock of this machine says, Unix ms. */
  readonly clock?: number
  readonly running?: RunningNode
  readonly twins?: readonly RunningNode[]
  /** `addresses`, signed. */
  readonly record?: SignedAddresses | undefined
}

/** The first message of each side. */
export type Hello = Extract<Message, { type: 'hello' }>

/** The hello of a node that says these facts of itself. */
export function helloOf(facts: LocalFacts): Hello {
  return {
    type: 'hello',
    versionMin: VERSION_MIN,
    versionMax: VERSION_MAX,
    creditBytes: SESSION_CREDIT_BYTES,
    ...facts,
  }
}

/**
 * Holds a peer to its first message being a hello, of the same site and with a version in common with this code. Errors:
 * PROTOCOL_VIOLATION; FORMAT_NEWER if one of the two is of a version that the other does not know any more, or not yet.
 */
export function checkHello(message: Message | undefined, peerId: string, local: LocalFacts): Hello {
  if (message?.type !== 'hello') throw new MeshError('PROTOCOL_VIOLATION', `${peerId} did not begin with hello`)
  if (message.versionMin > VERSION_MAX || message.versionMax < VERSION_MIN) {
    const theirs = `${message.versionMin} to ${message.versionMax}`
    throw new MeshError(
      'FORMAT_NEWER',
      `${peerId} speaks exchange versions ${theirs}, this machine ${VERSION_MIN} to ${VERSION_MAX}`,
    )
  }
  if (!sameBytes(message.siteId, local.siteId)) {
    const [theirs, ours] = [toHex(message.siteId).slice(0, 8), toHex(local.siteId).slice(0, 8)]
    throw new MeshError('PROTOCOL_VIOLATION', `${peerId} is of site ${theirs}, this machine of site ${ours}`)
  }
  return message
}
