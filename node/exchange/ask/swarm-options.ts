import type { MetadataVersions, PeerAddresses } from '../../../protocol/messages.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import type { LocalFacts } from '../local-facts.ts'
import type { PeerLedger } from './peer-ledger.ts'

export interface SwarmOptions {
  /** Peer id of this machine. */
  readonly self: string
  /** Opens an exchange stream to a connected peer. */
  readonly open: (peerId: string) => Promise<FrameStream>
  readonly local: () => LocalFacts
  /** A peer that is asked only for what nobody else has. */
  readonly isReluctant?: (peerId: string) => boolean
  /** A peer behind the uplink, which is asked only for what no near one has; default: none. */
  readonly isFar?: (peerId: string) => boolean
  /** Whether every other machine of the site is connected. */
  readonly nearSettled?: () => boolean
  /** Nobody near has what is to be fetched. */
  readonly onWanting?: () => void
  /** Content of so many bytes came, of this level of a tree. */
  readonly onReceived?: (peerId: string, level: number, bytes: number) => void
  readonly ledger?: PeerLedger
  readonly now?: () => number
  readonly random?: () => number
  /** Deadlines, for tests; see the constants of the same names. */
  readonly peerWaitMs?: number
  readonly holderWaitMs?: number
  readonly progressDeadlineMs?: number
  readonly stallDisconnectMs?: number
  readonly onVersions?: (peerId: string, versions: MetadataVersions) => void
  readonly onPeers?: (list: readonly PeerAddresses[]) => void
  readonly onBan?: (peerId: string, reason: string) => void
}
