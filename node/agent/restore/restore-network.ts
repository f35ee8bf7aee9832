import { setTimeout as sleep } from 'node:timers/promises'
import type { Bitmap } from '../../../protocol/bitmap.ts'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { HashPool } from '../../disk/hash-pool.ts'
import type { FetchedBlock, FetchRequest } from '../../exchange/ask/fetch-request.ts'
import { FETCH_TICK_MS } from '../../exchange/ask/limits.ts'
import type { BlockFetcher } from '../../restore/block-fetcher.ts'
import type { ServingConfig } from '../../state/machine-config.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { recordDoubts } from '../log/log-doubt.ts'
import { firstNews } from '../mesh/first-news.ts'
import { METADATA_WAIT_MS } from '../mesh/limits.ts'
import { MeshNode, type MeshNodeOptions } from '../mesh/mesh-node.ts'
import { linger } from '../offer/linger.ts'
import { type Offer, openSource } from '../offer/open-source.ts'
import { limitNode, stepBack } from '../offer/serving-limits.ts'
import { askSeen, type SeenReceipts } from '../receipts/ask-seen.ts'
import { MOVE_WAIT_MS } from './limits.ts'

/** What a {@link RestoreNetwork} works with. */
interface RestoreNetworkOptions extends Pick<MeshNodeOptions, 'machine' | 'listen' | 'mdns' | 'waitMs' | 'report'> {
  /** What serving others may take of this machine. */
  readonly serving: ServingConfig
  /** The release that is wanted; default: the newest one. */
  readonly release?: number | undefined
  /** Brings the network of this computer up, where no system has done that. */
  readonly bringUp?: (() => Promise<void>) | undefined
  readonly signal: AbortSignal
}

/** Peers told of a newer release, which is turned to. */
export class ReleaseSuperseded extends Error {}

/** Not all of a release can be had now. */
export class ReleaseUnavailable extends Error {}

/** The network of a restore: started when first needed, stopped with the command. */
export class RestoreNetwork {
  readonly #options: RestoreNetworkOptions
  #node: Promise<MeshNode> | undefined
  #running: MeshNode | undefined
  #offered: DiskSource | undefined
  #keepsToOlder = false

  constructor(options: RestoreNetworkOptions) {
    this.#options = options
  }

  /** Errors: ReleaseSuperseded, MEMBER_REMOVED, PORT_TAKEN, ADDRESS_INVALID. */
  async fetcher(manifest: VerifiedManifest): Promise<BlockFetcher> {
    this.#node ??= this.#start()
    const node = await this.#node
    this.#options.machine.assertMember()
    if (this.#isSuperseded(manifest)) throw new ReleaseSuperseded()
    return {
      ledger: node.swarm.ledger,
      fetch: (request, signal) => this.#fetch(manifest, node, request, signal),
    }
  }

  /**
   * Waits until reachable machines hold all of some blocks of a release. Errors: ReleaseUnavailable after MOVE_WAIT_MS,
   * ReleaseSuperseded, and those of starting.
   */
  async assertHeld(manifest: VerifiedManifest, blocks: Bitmap): Promise<void> {
    this.#node ??= this.#start()
    const { swarm } = await this.#node
    this.#options.machine.assertMember()
    const deadline = performance.now() + Math.min(MOVE_WAIT_MS, this.#options.waitMs ?? MOVE_WAIT_MS)
    for (;;) {
      if (this.#isSuperseded(manifest)) throw new ReleaseSuperseded()
      const missing = blocks.copy()
      for (const { held } of swarm.holders(toHex(manifest.root)))
        for (const [start, end] of held.toRanges().runs()) missing.clearRange(start, end)
      if (missing.count === 0 || this.#options.signal.aborted) return
      if (performance.now() >= deadline)
        throw new ReleaseUnavailable(`${missing.count} of its blocks are on no machine that can be reached`)
      await sleep(FETCH_TICK_MS)
    }
  }

  /** From now on a newer release than the one that is restored is left for another time. */
  keepToOlder(): void {
    this.#keepsToOlder = true
  }

  #isSuperseded({ image, release }: VerifiedManifest): boolean {
    if (this.#keepsToOlder) return false
    const newest = this.#options.machine.trust.view().newest(image)
    return this.#options.release === undefined && newest !== undefined && newest.release > release
  }

  /**
   * News may come late, with the first peer that answers: as long as nothing was fetched a newer release is turned to at once,
   * later if what is missing cannot be had any more. Errors: ReleaseSuperseded, and those of the swarm.
   */
  async *#fetch(
    manifest: VerifiedManifest,
    node: MeshNode,
    request: FetchRequest,
    signal: AbortSignal,
  ): AsyncGenerator<FetchedBlock> {
    const superseded = new AbortController()
    let fetched = false
    const { machine } = this.#options
    const stop = machine.trust.onChange(() => {
      if (machine.removed !== undefined || (!fetched && this.#isSuperseded(manifest))) superseded.abort()
    })
    try {
      for await (const block of node.swarm.fetch(request, AbortSignal.any([signal, superseded.signal]))) {
        fetched = true
        yield block
      }
    } catch (error) {
      if (isMeshError(error) && !signal.aborted) machine.assertMember()
      if (isMeshError(error) && !signal.aborted && this.#isSuperseded(manifest)) throw new ReleaseSuperseded()
      throw error
    } finally {
      stop()
    }
  }

  /** Verified blocks of the disk may be served while the restore runs. */
  offer(source: DiskSource): void {
    const before = this.#offered
    this.#offered = source
    // In this order the image is held all the time.
    this.#running?.hold(source)
    if (before !== undefined) this.#running?.drop(before)
  }

  /** What those who gather receipts say of this machine; undefined if the network was not needed, or nobody has answered. */
  async seenReceipts(): Promise<SeenReceipts | undefined> {
    const { machine } = this.#options
    return this.#running && askSeen(machine, this.#running, (doubt) => recordDoubts(machine, doubt))
  }

  /** Others that fetch over the uplink are not left without what came to this machine last. */
  async handOver(): Promise<void> {
    await this.#running?.swarm.handOver()
  }

  /** What `offer` has offered is offered no longer. */
  withdraw(): void {
    if (this.#offered !== undefined) this.#running?.drop(this.#offered)
    this.#offered = undefined
  }

  /** The restored disk is offered as it is read from now on, before what the restore offered is withdrawn. */
  async keepOffering(offer: Offer, pool: HashPool, stack: AsyncDisposableStack): Promise<void> {
    const { machine, report, signal } = this.#options
    try {
      this.#node ??= this.#start()
      const node = await this.#node
      const source = await openSource({ machine, offer, pool, report, signal }, stack)
      if (source !== undefined) node.hold(source)
    } catch (error) {
      // The disk is restored all the same.
      if (!isMeshError(error)) throw error
      report({ type: 'warning', text: `the others cannot be served: ${error.message}` })
    }
  }

  /** Serves the others until they are done, for `ms` at most. */
  async linger(manifest: VerifiedManifest, ms: number): Promise<void> {
    const { serving, signal, report } = this.#options
    if (this.#running === undefined) return
    stepBack(serving)
    report({ type: 'note', text: `serving the others until they are done, ${ms / 1000} s at most` })
    await linger(this.#running, manifest, { ms, signal })
  }

  /** This machine in the network; undefined as long as the network was not needed. */
  get node(): MeshNode | undefined {
    return this.#running
  }

  /** How many members are connected; absent as long as the network was not needed. */
  peerCount(): { peers?: number } {
    return this.#running === undefined ? {} : { peers: this.#running.connectedMembers().length }
  }

  /** Leaves the network, if it was ever needed. */
  async stop(): Promise<void> {
    await (await this.#node?.catch(() => undefined))?.stop()
  }

  async #start(): Promise<MeshNode> {
    const { machine, serving, listen, mdns, report, signal, waitMs, bringUp } = this.#options
    machine.assertMember()
    await bringUp?.()
    const node = await MeshNode.start({ machine, listen, mdns, report, waitMs, gradual: true })
    this.#running = node
    limitNode(node, serving)
    report({ type: 'listening', peerId: node.peerId, addresses: node.addresses() })
    if (this.#offered !== undefined) node.hold(this.#offered)
    // The first peer's metadata tells whether there is a newer release; without a peer there is nothing to wait for long.
    await firstNews(node, Math.min(METADATA_WAIT_MS, waitMs ?? METADATA_WAIT_MS), signal)
    if (node.swarm.peers().length === 0 && waitMs === undefined) this.#tellOfWaiting(node)
    return node
  }

  /** A long wait is explained before it. */
  #tellOfWaiting({ link }: MeshNode): void {
    const young = link.youngest()
    if (young === undefined) return
    const text = `no machine of the site answers yet. The link of network card ${young.card} may be new, and a switch may let nothing through for 30 s after a link comes up. Waiting for ${Math.round(young.restMs / 1000)} s more`
    this.#options.report({ type: 'note', text })
  }
}
