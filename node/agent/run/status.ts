import { toHex } from '../../../protocol/digest.ts'
import type { ReceiptRecord } from '../../../protocol/receipt-document.ts'
import type { ServeFigures } from '../../exchange/serve/serve-scheduler.ts'
import type { SiteTraffic } from '../../exchange/uplink/uplink-figures.ts'
import type { Role } from '../../trust/members.ts'
import type { StagingStatus } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { HeldStatus } from '../offer/open-source.ts'

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

export async function describeStatus(
  machine: Machine,
  live: {
    node?: MeshNode
    inUse?: boolean
    held?: HeldStatus | undefined
    staging?: StagingStatus | undefined
    receipt?: ReceiptRecord | undefined
  },
): Promise<Status> {
  const { config, trust } = machine
  const view = trust.view()
  const manifest = live.held?.manifest ?? (config.image === undefined ? undefined : view.newest(config.image))
  const { receipt } = live
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
    ...(manifest === undefined
      ? {}
      : { image: manifest.image, release: manifest.release, root: toHex(manifest.root), size: manifest.size }),
    ...(live.held === undefined || live.node === undefined ? {} : { blocks: countBlocks(live.held, live.node) }),
    ...(live.node === undefined ? {} : { serving: { ...live.node.serving(), inUse: live.inUse === true } }),
    ...(live.staging === undefined ? {} : { staging: live.staging }),
    ...(live.node === undefined ? {} : { uplink: live.node.uplink.bySite() }),
    members: view.members.length,
    peers: live.node?.connectedMembers().length ?? 0,
    metadataExpires: new Date(view.expires).toISOString(),
    ...(receipt === undefined
      ? {}
      : {
          lastRestore: {
            verified: receipt.verified,
            release: receipt.release,
            startedAt: receipt.startedAt,
            seconds: receipt.ms / 1000,
            ...(receipt.failure === null ? {} : { failure: receipt.failure.message }),
          },
        }),
  }
}

function countBlocks({ manifest, source }: HeldStatus, node: MeshNode): NonNullable<Status['blocks']> {
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

export function describePeers(machine: Machine, node: MeshNode): { event: 'peers'; peers: PeerStatus[] } {
  const image = machine.config.image
  const manifest = image === undefined ? undefined : machine.trust.view().newest(image)
  const held = new Map(
    (manifest === undefined ? [] : node.swarm.holders(toHex(manifest.root))).map((holder) => [
      holder.peerId,
      holder.held.count,
    ]),
  )
  const connected = new Set(node.connectedMembers().map(({ id }) => id))
  const list = machine.trust.view().members.filter(({ id }) => id !== node.peerId)
  return {
    event: 'peers',
    peers: list.map(({ id, name, role, site, group, mac }) => {
      const { blocks, bytes, bad } = node.swarm.ledger.of(id)
      return {
        id,
        name,
        role,
        site,
        group,
        mac,
        connected: connected.has(id),
        held: held.get(id) ?? 0,
        blocks,
        bytes,
        bad,
      }
    }),
  }
}
