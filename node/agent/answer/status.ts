/**
 * The room `answer`: what this machine says of itself to the person who sits at it.
 * status describes the machine, from its state directory and, while a command runs that is in the network, from that. replies is what
 * such a command must answer, which may be of another version.
 */

import { toHex } from '../../../protocol/digest.ts'
import type { Receipt } from '../../../protocol/receipt.ts'
import type { ServeFigures } from '../../exchange/serve/serve-scheduler.ts'
import type { SiteTraffic } from '../../exchange/uplink/uplink-figures.ts'
import { DirtiedCounts } from '../../store/dirtied-counts.ts'
import { Stage } from '../../store/stage.ts'
import type { Role } from '../../trust/members.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { StagingStatus } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { ServicePart } from '../machine/service-part.ts'
import type { Work } from '../machine/work.ts'
import { type BannedMember, MEMBER_MOST, type MemberFigures, type MemberMost } from '../mesh/conduct.ts'
import type { SharedIdentity } from '../mesh/identity-watch.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { HeldRelease } from '../offer/open-source.ts'

/** Blocks of an image. */
interface BlockCounts {
  readonly total: number
  /** Blocks this machine can serve. */
  readonly held: number
  /** Blocks that no longer are what was published or restored. */
  readonly changed: number
  /** Blocks that neither this machine nor any connected one holds. */
  readonly unheld: number
}

/** What `mesh status` tells of the stage. */
interface StageStatus {
  readonly blocks: number
  readonly bytes: number
  readonly dirtied: number
}

/** Result of `mesh status`. */
export interface Status {
  readonly event: 'status'
  /** Whether a command holds this state directory; then `command`, `pid` and `since` (ISO 8601) say which. */
  readonly running: boolean
  readonly command?: string
  readonly pid?: number
  readonly since?: string
  /** The long piece of work that it is at, and for how many seconds. */
  readonly work?: Work['progress']
  /** Programs of this computer that ask that command now. */
  readonly callers?: Work['callers']
  readonly site: string
  readonly siteId: string
  readonly name: string
  readonly id: string
  readonly role: Role
  readonly group?: string
  readonly disk?: string
  readonly image?: string
  readonly release?: number
  readonly root?: string
  readonly size?: number
  readonly blocks?: BlockCounts
  /** Other images that the master offers, too. */
  readonly others?: readonly { readonly image: string; readonly release: number; readonly blocks: BlockCounts }[]
  /** What others take of this machine: bytes since the command began, bytes per second lately, machines. */
  readonly serving?: ServeFigures & { readonly inUse: boolean }
  /** What each member that fetches here has of this machine. */
  readonly clients?: readonly MemberFigures[]
  /** The most that one of them may have. */
  readonly memberMost?: MemberMost
  /** Members that broke the rules, and are not asked for a while. */
  readonly banned?: readonly BannedMember[]
  /** A newer release than that on the disk, being fetched ahead. */
  readonly staging?: StagingStatus
  /** Blocks that are kept beside the disk, fetched ahead or pre-images, and how many blocks sessions have dirtied lately. */
  readonly stage?: StageStatus
  /** What has crossed between this machine and each other site since the command began, in bytes of content. */
  readonly uplink?: readonly SiteTraffic[]
  /** This machine was taken out of the site; `at`: when, ISO 8601, if that is known. */
  readonly removed?: { readonly at?: string }
  /** Other machines that run with the key of this one, as a peer has told. */
  readonly twins?: SharedIdentity
  readonly members: number
  readonly peers: number
  /** When the first of the trusted metadata expires, ISO 8601. */
  readonly metadataExpires: string
  readonly lastRestore?: {
    readonly verified: boolean
    readonly release: number | null
    readonly startedAt: string
    readonly seconds: number
    /** Why it failed. */
    readonly failure?: string
  }
}

/** Result of `mesh peers`: all members but this machine. */
export interface Peers {
  readonly event: 'peers'
  readonly peers: readonly PeerStatus[]
}

/** One line of `mesh peers`. */
export interface PeerStatus {
  readonly id: string
  readonly name: string
  readonly role: Role
  readonly site: string
  readonly group: string
  readonly mac: readonly string[]
  readonly connected: boolean
  /** Blocks of this machine's image that the peer says it holds. */
  readonly held: number
  readonly blocks: number
  readonly bytes: number
  readonly bad: number
  /** Its network cards, if they are others than those of `mac`, which the member list knows. */
  readonly macNow?: readonly string[]
  /** Machines that run with this key, if there are several. */
  readonly twins?: SharedIdentity
}

/** What {@link statusMethods} works with. */
interface StatusMethodsOptions {
  readonly machine: Machine
  /** Undefined as long as the command is not in the network. */
  readonly node: () => MeshNode | undefined
  /** What is offered, the image of this machine first. */
  readonly held?: () => readonly HeldRelease[]
  readonly staging?: () => StagingStatus | undefined
  readonly inUse?: () => boolean
}

/** The control methods `live` and `peers` of a command that is in the network, or will be. */
export function statusMethods(options: StatusMethodsOptions): Pick<ServicePart, 'methods'> {
  const { machine, node, held, staging, inUse } = options
  const live = async (): Promise<Live> => describeLive(node(), held?.() ?? [], staging?.(), inUse?.() === true)
  return { methods: { live, peers: async () => describePeers(machine, node()) } }
}

/** What only the running command knows. */
export type Live = Partial<
  Pick<
    Status,
    | 'image'
    | 'release'
    | 'root'
    | 'size'
    | 'blocks'
    | 'others'
    | 'serving'
    | 'clients'
    | 'memberMost'
    | 'banned'
    | 'staging'
    | 'uplink'
    | 'twins'
  >
> &
  Pick<Status, 'peers'>

/** What is in the stage of a machine, whatever runs on it; undefined if there is nothing. */
export async function describeStage(machine: Machine): Promise<StageStatus | undefined> {
  const directory = machine.state.path('stage')
  const { image } = machine.config
  const manifest = image === undefined ? undefined : machine.trust.view().newest(image)
  const held = await Stage.peek(directory)
  const dirtied = manifest === undefined ? 0 : (await DirtiedCounts.load(directory, manifest)).size
  const { blocks, bytes } = held ?? { blocks: 0, bytes: 0 }
  return blocks + dirtied === 0 ? undefined : { blocks, bytes, dirtied }
}

/** What is known of a machine beside its configuration. */
interface StatusFacts {
  /** The record of its last restore. */
  readonly receipt: Receipt | undefined
  readonly stage: StageStatus | undefined
  /** What the command says that holds the directory. */
  readonly live: Live | undefined
}

/** The status of a machine, of all that is known of it. */
export function describeStatus(machine: Machine, { receipt, stage, live }: StatusFacts): Status {
  const { config, trust, holder } = machine
  const view = trust.view()
  const manifest = config.image === undefined ? undefined : view.newest(config.image)
  const self = view.memberById(config.id)
  return {
    event: 'status',
    running: holder !== undefined,
    ...(holder === undefined ? {} : describeHolder(holder)),
    site: self?.site ?? config.site,
    siteId: config.siteId,
    name: config.name,
    id: config.id,
    role: self?.role ?? config.role,
    ...(self === undefined ? {} : { group: self.group }),
    ...(config.disk === undefined ? {} : { disk: config.disk }),
    ...(manifest === undefined ? {} : describeRelease(manifest)),
    ...(machine.removed === undefined ? {} : { removed: machine.removed }),
    ...(stage === undefined ? {} : { stage }),
    peers: 0,
    ...live,
    members: view.members.length,
    metadataExpires: new Date(view.expires).toISOString(),
    ...(receipt === undefined ? {} : { lastRestore: describeRestore(receipt) }),
  }
}

function describeHolder({ command, pid, since, progress, callers }: Work): Partial<Status> {
  const more = { ...(progress === undefined ? {} : { work: progress }), ...(callers === undefined ? {} : { callers }) }
  return { command, pid, since, ...more }
}

function describeRelease({ image, release, root, size }: VerifiedManifest): Partial<Live> {
  return { image, release, root: toHex(root), size }
}

function describeLive(
  node: MeshNode | undefined,
  [held, ...others]: readonly HeldRelease[],
  staging: StagingStatus | undefined,
  inUse: boolean,
): Live {
  if (node === undefined) return { peers: 0 }
  return {
    ...(held === undefined ? {} : { ...describeRelease(held.manifest), blocks: countBlocks(held, node) }),
    ...(others.length === 0 ? {} : { others: others.map((one) => describeOther(one, node)) }),
    serving: { ...node.serving(), inUse },
    clients: node.conduct.clients(),
    memberMost: MEMBER_MOST,
    banned: node.conduct.banned(),
    ...(staging === undefined ? {} : { staging }),
    uplink: node.uplink.bySite(),
    peers: node.connectedMembers().length,
    ...(node.identities.ownTwins === undefined ? {} : { twins: node.identities.ownTwins }),
  }
}

function describeRestore(receipt: Receipt): NonNullable<Status['lastRestore']> {
  const { verified, release, startedAt, ms, failure } = receipt
  return { verified, release, startedAt, seconds: ms / 1000, ...(failure === null ? {} : { failure: failure.message }) }
}

function describeOther(held: HeldRelease, node: MeshNode): NonNullable<Status['others']>[number] {
  const { image, release } = held.manifest
  return { image, release, blocks: countBlocks(held, node) }
}

function countBlocks({ manifest, source }: HeldRelease, node: MeshNode): BlockCounts {
  const total = source.tree.geometry.blockCount
  const held = source.heldCount
  const changed = total - manifest.preserve.count - held
  const holders = node.swarm.holders(toHex(manifest.root))
  let unheld = 0
  if (changed > 0) {
    const own = source.held().union(manifest.preserve)
    for (let block = 0; block < total; block++) {
      if (!own.has(block) && !holders.some((holder) => holder.held.has(block))) unheld++
    }
  }
  return { total, held, changed, unheld }
}

/** What has come from somebody as long as this machine is not in the network. */
const NOTHING = { blocks: 0, bytes: 0, bad: 0 }

function describePeers(machine: Machine, node: MeshNode | undefined): Peers {
  const { image, id: self } = machine.config
  const view = machine.trust.view()
  const manifest = image === undefined ? undefined : view.newest(image)
  const holders = manifest === undefined ? [] : (node?.swarm.holders(toHex(manifest.root)) ?? [])
  const held = new Map(holders.map(({ peerId, held: blocks }) => [peerId, blocks.count]))
  const connected = new Set(node?.connectedMembers().map(({ id }) => id))
  const others = view.members.filter(({ id }) => id !== self)
  return {
    event: 'peers',
    peers: others.map(({ id, name, role, site, group, mac }) => {
      const { blocks, bytes, bad } = node?.swarm.ledger.of(id) ?? NOTHING
      const isConnected = connected.has(id)
      const twins = node?.identities.sharedBy(id)
      const macNow = node?.cards.of(id)
      const known = { id, name, role, site, group, mac, connected: isConnected, held: held.get(id) ?? 0 }
      return {
        ...known,
        blocks,
        bytes,
        bad,
        ...(twins === undefined ? {} : { twins }),
        ...(macNow === undefined ? {} : { macNow }),
      }
    }),
  }
}
