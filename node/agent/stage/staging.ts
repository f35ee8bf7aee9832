import { Bitmap } from '../../../protocol/bitmap.ts'
import { type Digest, toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { ensureTree } from '../../restore/tree-fetch.ts'
import { DirtiedCounts } from '../../store/dirtied-counts.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { PreImages } from '../../store/pre-images.ts'
import { Stage } from '../../store/stage.ts'
import { StagedSource } from '../../store/staged-source.ts'
import type { TreeFile } from '../../store/tree-file.ts'
import { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { AgentEvent, StagingStatus } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import { pause } from '../machine/pause.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { STAGE_FLUSH_BYTES, STAGE_FLUSH_MS, STAGE_PORTION_BLOCKS, STAGE_PORTION_MS, STAGE_RETRY_MS } from './limits.ts'
import { StagePlan } from './stage-plan.ts'

/** What a {@link Staging} works with. */
interface StagingOptions {
  readonly machine: Machine
  readonly node: MeshNode
  /** What is on the disk, and which release that is. */
  readonly source: DiskSource
  readonly onDisk: VerifiedManifest
  /** The release to stage. */
  readonly manifest: VerifiedManifest
  /** Bytes that the stage may take. */
  readonly space: number
  /** Bytes per second at this moment; undefined for as fast as can be. */
  readonly rate: () => number | undefined
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
}

/**
 * One release that is being put aside and offered. First comes its tree, then the blocks that have to be fetched. After that, as long
 * as the machine runs, come blocks which the session dirties and which the release has as they were.
 */
export class Staging {
  readonly #options: StagingOptions
  readonly #tree: TreeFile
  readonly #stage: Stage
  readonly #plan: StagePlan
  /** Blocks that the stage may hold. */
  readonly #capacity: number
  readonly #offer: StagedSource
  /** Blocks that the session has dirtied since that was last looked at. */
  #dirtied = new Set<number>()
  #received: number
  #state: Pick<StagingStatus, 'state' | 'reason'> = { state: 'fetching' }
  /** When more may be asked for, by `performance.now()`. */
  #nextAt = 0
  /** Whether the first portion was asked for. Only that is fetched together with others, who hear of the release at the same time. */
  #hasBegun = false
  #flushedAt = performance.now()
  #unflushed = 0

  private constructor(
    options: StagingOptions,
    parts: { tree: TreeFile; stage: Stage; plan: StagePlan; capacity: number },
    received: number,
  ) {
    this.#options = options
    this.#tree = parts.tree
    this.#stage = parts.stage
    this.#plan = parts.plan
    this.#capacity = parts.capacity
    this.#received = received
    const { changed, held } = parts.plan
    this.#offer = new StagedSource({ ...parts, disk: options.source, changed, held: held.copy() })
  }

  /** Errors: those of fetching a tree, TREE_CORRUPT, DISK_FULL, DISK_IO, INTERRUPTED. */
  static async begin(options: StagingOptions, stack: AsyncDisposableStack): Promise<Staging> {
    const { machine, node, manifest, source, space, signal } = options
    const { tree, received } = await ensureTree({
      facts: manifest,
      trees: new TreeStore(await machine.home.subdirectory('trees')),
      others: machine.trust.view().releases(manifest.image),
      fetcher: async () => ({
        ledger: node.swarm.ledger,
        fetch: (request, ended) => node.swarm.fetch({ ...request, together: true }, ended),
      }),
      progress: () => undefined,
      signal,
    })
    stack.adopt(tree, (it) => it.close())
    const stage = stack.adopt(await Stage.open(machine.state.path('stage'), manifest.blockSize), (it) => it.close())
    await stage.check(signal)
    const capacity = await stage.capacity(space)
    const plan = await StagePlan.make({ tree, source, stage, capacity })
    const staging = new Staging(options, { tree, stage, plan, capacity }, received)
    await staging.#makeRoom()
    return staging
  }

  status(): StagingStatus {
    const { wanted, left, staged } = this.#plan
    const { release } = this.#options.manifest
    return { release, wanted, staged, left, received: this.#received, ...this.#state }
  }

  /** Fetches until the signal aborts, and offers what is here meanwhile. */
  async run(): Promise<void> {
    const { node, source, signal } = this.#options
    node.hold(this.#offer)
    const stop = source.onChange(({ lost }) => {
      for (const index of lost.subtract(this.#plan.changed).values()) this.#dirtied.add(index)
    })
    try {
      while (!signal.aborted) {
        await this.#fillOrWait()
        await pause(STAGE_RETRY_MS, signal)
        await this.#planDirtied()
      }
    } finally {
      stop()
      this.#offer.close()
      node.drop(this.#offer)
    }
  }

  async #fillOrWait(): Promise<void> {
    const { signal, manifest, report } = this.#options
    if (this.#plan.copy.count + this.#plan.fetch.count === 0 && this.#state.state === 'done') return
    this.#state = { state: 'fetching' }
    try {
      await this.#fill()
      if (signal.aborted) return
      this.#state = { state: 'done' }
      report({ type: 'staged', image: manifest.image, ...this.status() })
    } catch (error) {
      // A machine that has what is missing may come later.
      if (!isMeshError(error)) throw error
      this.#state = { state: 'waiting', reason: error.message }
    }
  }

  async #fill(): Promise<void> {
    try {
      await this.#copyFromDisk()
      while (this.#plan.fetch.count > 0 && !this.#options.signal.aborted) await this.#fetchPortion()
    } finally {
      await this.#stage.flush()
    }
  }

  /** Copies content from the disk which the switch would overwrite before it needs it. */
  async #copyFromDisk(): Promise<void> {
    const { source, signal } = this.#options
    for (const index of this.#plan.copy.values()) {
      if (signal.aborted) return
      const digest = await this.#tree.leaf(index)
      let found: Uint8Array | undefined
      await source.getMany([{ digest, level: 0, index }], (_, content) => {
        found = content
      })
      this.#plan.copy.clear(index)
      if (found === undefined) this.#plan.fetch.set(index)
      else await this.#take(digest, found)
    }
  }

  /** Fetches all that is left; with a limit on the rate, what the limit grants in STAGE_PORTION_MS. */
  async #fetchPortion(): Promise<void> {
    const { node, signal, rate, source } = this.#options
    const limit = rate()
    await pause(this.#nextAt - performance.now(), signal)
    if (signal.aborted) return
    const wanted = limit === undefined ? this.#plan.fetch : this.#portion(limit)
    const { root, geometry } = this.#tree
    const request = {
      root,
      level: 0,
      blockSize: geometry.blockSize,
      wanted,
      digestOf: (i: number) => this.#tree.leaf(i),
      // What the release on the disk has in its place.
      sparse: {
        granules: () => undefined,
        read: (i: number) => source.disk.readBlock(i),
        isAlike: (i: number) => source.holdsBlock(i),
      },
      together: !this.#hasBegun,
    }
    this.#hasBegun = true
    for await (const { index, data, received } of node.swarm.fetch(request, signal)) {
      await this.#take(await this.#tree.leaf(index), data)
      this.#plan.fetch.clear(index)
      this.#received += received
      const now = rate()
      if (now !== undefined) this.#nextAt = Math.max(this.#nextAt, performance.now()) + (received / now) * 1000
      // Somebody has begun to use the machine: from here on there is a limit.
      if (now !== undefined && limit === undefined) return
    }
  }

  #portion(rate: number): Bitmap {
    const most = Math.max(STAGE_PORTION_BLOCKS, ((rate / this.#tree.geometry.blockSize) * STAGE_PORTION_MS) / 1000)
    const portion = new Bitmap(this.#plan.fetch.length)
    for (const index of this.#plan.fetch.values()) {
      if (portion.count >= most) break
      portion.set(index)
    }
    return portion
  }

  async #take(digest: Digest, data: Uint8Array): Promise<void> {
    await this.#stage.add(digest, data)
    for (const index of this.#plan.blocksWith(digest)) this.#offer.gained(index)
    this.#unflushed += data.byteLength
    if (this.#unflushed < STAGE_FLUSH_BYTES && performance.now() - this.#flushedAt < STAGE_FLUSH_MS) return
    await this.#stage.flush()
    this.#unflushed = 0
    this.#flushedAt = performance.now()
  }

  async #planDirtied(): Promise<void> {
    const dirtied = this.#dirtied
    this.#dirtied = new Set()
    if (dirtied.size === 0) return
    await this.#plan.add([...dirtied].sort((a, b) => a - b))
    if (this.#plan.planned - this.#plan.staged + this.#stage.count > this.#capacity) await this.#makeRoom()
    for (const index of dirtied) if (this.#plan.held.has(index)) this.#offer.gained(index)
    this.#state = { state: 'fetching' }
  }

  /** Drops what the release does not need, but for the pre-images that are worth most, as many as there is room for. */
  async #makeRoom(): Promise<void> {
    const { machine, source, onDisk } = this.#options
    const { tree } = source
    const counts = await DirtiedCounts.load(machine.state.path('stage'), onDisk)
    const images = new PreImages({ stage: this.#stage, counts, tree, capacity: this.#capacity })
    const worth = await images.worthMost(this.#capacity - this.#plan.planned)
    await this.#stage.retain((digest) => this.#plan.needs(digest) || worth.has(toHex(digest)))
  }
}
