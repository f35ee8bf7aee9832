import { toHex } from '../../../protocol/digest.ts'
import type { Receipt } from '../../../protocol/receipt.ts'
import type { ServeFigures } from '../../exchange/serve/serve-scheduler.ts'
import type { SiteTraffic } from '../../exchange/uplink/uplink-figures.ts'
import type { Role } from '../../trust/members.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { StagingStatus } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { ServicePart } from '../machine/service-part.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { HeldRelease } from '../offer/open-source.ts'
import { lastReceipt } from '../receipts/own-receipts.ts'

/** Result of `mesh status`. */
export interface Status {
  readonly event: 'status'
  /** Whether `mesh up` or `mesh seed` runs on this state directory; then `command` and `pid` say which. */
  readonly running: boolean
  readonly command?: string
  readonly pid?: number
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
  readonly blocks?: {
    readonly total: number
    /** Blocks this machine can serve. */
    readonly held: number
    /** Blocks that no longer are what was published or restored. */
    readonly changed: number
    /** Blocks that neither this machine nor any connected one holds. */
    readonly unheld: number
  }
  /** What others take of this machine: bytes since the command began, bytes per second lately, machines. */
  readonly serving?: ServeFigures & { readonly inUse: boolean }
  /** A newer release than that on the disk, being fetched ahead. */
  readonly staging?: StagingStatus
  /** What has crossed between this machine and each other site since the command began, in bytes of content. */
  readonly uplink?: readonly SiteTraffic[]
  /** This machine was taken out of the site; `at`: when, ISO 8601, if that is known. */
  readonly removed?: { readonly at?: string }
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
}

/** What {@link statusMethods} works with. */
interface StatusMethodsOptions {
  readonly machine: Machine
  readonly node: MeshNode
  /** Name of the command that runs. */
  readonly command: string
  readonly held: () => HeldRelease | undefined
  readonly staging: () => StagingStatus | undefined
  readonly inUse: () => boolean
}

/** The control methods `status` and `peers` of a running command. */
export function statusMethods(options: StatusMethodsOptions): ServicePart {
  const { machine, node, command, held, staging, inUse } = options
  const status = async (): Promise<Status> => {
    const live = { node, inUse: inUse(), held: held(), staging: staging() }
    const receipt = await lastReceipt(machine)
    return { ...describeStatus(machine, receipt, live), running: true, command, pid: process.pid }
  }
  return { methods: { status, peers: async () => describePeers(machine, node) } }
}

/** What only a running command knows. */
interface Live {
  readonly node: MeshNode
  readonly inUse: boolean
  readonly held: HeldRelease | undefined
  readonly staging: StagingStatus | undefined
}

/** The status of a machine; `live` is absent if no command runs. `receipt`: the record of its last restore. */
export function describeStatus(machine: Machine, receipt: Receipt | undefined, live?: Live): Status {
  const { config, trust } = machine
  const view = trust.view()
  const manifest = live?.held?.manifest ?? (config.image === undefined ? undefined : view.newest(config.image))
  const self = view.memberById(config.id)
  return {
    event: 'status',
    running: false,
    site: self?.site ?? config.site,
    siteId: config.siteId,
    name: config.name,
    id: config.id,
    role: self?.role ?? config.role,
    ...(self === undefined ? {} : { group: self.group }),
    ...(config.disk === undefined ? {} : { disk: config.disk }),
    ...(manifest === undefined ? {} : describeRelease(manifest)),
    ...(live === undefined ? {} : describeLive(live)),
    ...(machine.removed === undefined ? {} : { removed: machine.removed }),
    members: view.members.length,
    peers: live?.node.connectedMembers().length ?? 0,
    metadataExpires: new Date(view.expires).toISOString(),
    ...(receipt === undefined ? {} : { lastRestore: describeRestore(receipt) }),
  }
}

function describeRelease({ image, release, root, size }: VerifiedManifest): Partial<Status> {
  return { image, release, root: toHex(root), size }
}

function describeLive({ node, inUse, held, staging }: Live): Partial<Status> {
  return {
    ...(held === undefined ? {} : { blocks: countBlocks(held, node) }),
    serving: { ...node.serving(), inUse },
    ...(staging === undefined ? {} : { staging }),
    uplink: node.uplink.bySite(),
  }
}

function describeRestore(receipt: Receipt): NonNullable<Status['lastRestore']> {
  const { verified, release, startedAt, ms, failure } = receipt
  return { verified, release, startedAt, seconds: ms / 1000, ...(failure === null ? {} : { failure: failure.message }) }
}

function countBlocks({ manifest, source }: HeldRelease, node: MeshNode): NonNullable<Status['blocks']> {
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

function describePeers(machine: Machine, node: MeshNode): Peers {
  const { image } = machine.config
  const view = machine.trust.view()
  const manifest = image === undefined ? undefined : view.newest(image)
  const holders = manifest === undefined ? [] : node.swarm.holders(toHex(manifest.root))
  const held = new Map(holders.map(({ peerId, held: blocks }) => [peerId, blocks.count]))
  const connected = new Set(node.connectedMembers().map(({ id }) => id))
  const others = view.members.filter(({ id }) => id !== node.peerId)
  return {
    event: 'peers',
    peers: others.map(({ id, name, role, site, group, mac }) => {
      const { blocks, bytes, bad } = node.swarm.ledger.of(id)
      const isConnected = connected.has(id)
      return { id, name, role, site, group, mac, connected: isConnected, held: held.get(id) ?? 0, blocks, bytes, bad }
    }),
  }
}
