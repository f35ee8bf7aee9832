import type { MetadataVersions, PeerAddresses } from '../../../protocol/message-parts.ts'
import type { FrameStream } from '../../net/frame-stream.ts'
import type { LocalFacts } from '../local-facts.ts'

/** What a signed manifest says of an image. */
export interface SignedSize {
  readonly size: number
  readonly blockSize: number
}

/** Finds what is signed of an image, by its root in hexadecimal; undefined: no manifest that this machine has names it. */
export type FindImage = (root: string) => SignedSize | undefined

/** How the swarm places peers; each question has a default. */
interface PeerPlaces {
  /** Whether a peer is behind the uplink, and asked only for what no near one has (@default none is). */
  readonly isFar: (peerId: string) => boolean
  /** Whether every other machine of the site is connected (@default they are). */
  readonly nearSettled: () => boolean
  /** Whether a peer is asked only for what nobody else has (@default none is). */
  readonly isReluctant: (peerId: string) => boolean
}

/** What the swarm reports of its peers. */
export interface SwarmEvents {
  /** Something is to be fetched that nobody near has; reported at each tick as long as that is so. */
  readonly onWanting: () => void
  /** A verified item of a level of a tree (0: a block) came, and so many bytes of content for it. */
  readonly onReceived: (peerId: string, level: number, bytes: number) => void
  /** A peer said which versions of the site's metadata it has. */
  readonly onVersions: (peerId: string, versions: MetadataVersions) => void
  /** A peer said where members of the site can be reached, itself or others. */
  readonly onPeers: (peerId: string, list: readonly PeerAddresses[]) => void
  /** A peer is not asked again until then, Unix ms; `reason` is the rest of a sentence that begins with its name, or with its id. */
  readonly onBan: (peerId: string, reason: string, until: number) => void
}

/** How patient a fetch is, in milliseconds; the defaults are the limits of the same names in limits.ts. */
export interface SwarmDeadlines {
  readonly peerWaitMs: number
  readonly holderWaitMs: number
  /** Of far peers the limits with FAR_ in front. */
  readonly progressDeadlineMs: number
  readonly stallDisconnectMs: number
}

/** What is known of the network of this machine. */
export interface NetworkFacts {
  /** Whether peers that cannot be reached now may be a moment later, so that a fetch does not give up (@default they may not). */
  readonly isComing: () => boolean
  /** Why no peer may be reached, as the rest of a sentence. */
  readonly fault: () => string | undefined
}

/** What a {@link Swarm} needs of the machine around it. */
export interface SwarmOptions {
  /** Peer id of this machine. */
  readonly self: string
  /** Opens an exchange stream to a connected peer. */
  readonly open: (peerId: string) => Promise<FrameStream>
  /** What this machine says of itself to a peer. */
  readonly local: () => LocalFacts
  /** What peers say of any other image is not remembered. */
  readonly imageOf: FindImage
  readonly places?: Partial<PeerPlaces>
  readonly events?: Partial<SwarmEvents>
  readonly deadlines?: Partial<SwarmDeadlines>
  readonly network?: NetworkFacts
  /** Milliseconds of any clock (@default performance.now). */
  readonly now?: () => number
  /** In [0, 1) (@default Math.random). */
  readonly random?: () => number
}
