import type { Bitmap } from '../../../protocol/bitmap.ts'
import { toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { ProvidedBlock } from '../../restore/block-provider.ts'
import type { DirtiedBlocks, StagePlace } from '../../restore/restore.ts'
import type { ServingConfig } from '../../state/machine-config.ts'
import { DirtiedCounts } from '../../store/dirtied-counts.ts'
import { DIRTIED_MAX_BLOCKS, KEEP_AT_RESTORE_BYTES, STAGE_SPACE_BYTES } from '../../store/limits.ts'
import { PreImages } from '../../store/pre-images.ts'
import { Stage } from '../../store/stage.ts'
import type { TreeFile } from '../../store/tree-file.ts'
import type { TreeStore } from '../../store/tree-store.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import { type DiskState, readDiskState } from '../machine/disk-state.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'

/** What a {@link RestoreStage} works with. */
interface RestoreStageParts {
  readonly machine: Machine
  readonly serving: Pick<ServingConfig, 'stageSpace'>
  readonly report: (event: AgentEvent) => void
}

/**
 * The stage as one restore uses it. The restore reads from it what was fetched ahead and pre-images; it counts which blocks the session
 * dirtied, and keeps their content as it comes. A restore of a clean disk does not open it. A stage that cannot be used is reported:
 * a restore does as well without it.
 */
export class RestoreStage implements StagePlace {
  readonly isAhead: boolean
  readonly #manifest: VerifiedManifest
  readonly #parts: RestoreStageParts
  /** What the disk held before. */
  readonly #before: DiskState | undefined
  readonly #isSame: boolean
  #counts: DirtiedCounts | undefined
  #stage: Promise<Stage | undefined> | undefined

  private constructor(manifest: VerifiedManifest, parts: RestoreStageParts, before: DiskState | undefined) {
    this.#manifest = manifest
    this.#parts = parts
    this.#before = before
    this.#isSame = before?.root === toHex(manifest.root)
    this.isAhead = !(this.#isSame && before?.state === 'whole')
  }

  static async make(manifest: VerifiedManifest, parts: RestoreStageParts): Promise<RestoreStage> {
    return new RestoreStage(manifest, parts, await readDiskState(parts.machine.state))
  }

  async open(): Promise<Stage | undefined> {
    const { blockSize } = this.#manifest
    this.#stage ??= this.#orWithout(
      () => Stage.openIfThere(this.#directory, blockSize),
      'what was staged cannot be used',
    )
    return this.#stage
  }

  /**
   * Counts the blocks that the session dirtied, durably; before `disk-state` says `partial`, so that a restore that is cut off does not
   * count twice. A disk that did not hold all of a release was not dirtied by a session.
   */
  async count({ blocks, alike }: DirtiedBlocks): Promise<void> {
    const { machine } = this.#parts
    if (!this.#isKeeping || machine.state.unwritable !== undefined) return
    const counts = await DirtiedCounts.load(this.#directory, this.#manifest)
    this.#counts = counts
    if (this.#before?.state !== 'whole' || (await readDiskState(machine.state))?.state !== 'whole') return
    // A scan finds what another release has as well.
    if (!this.#isSame && alike === undefined) return
    const dirtied = alike === undefined ? blocks : blocks.subtract(alike)
    if (dirtied.count === 0 || dirtied.count > DIRTIED_MAX_BLOCKS) return
    counts.count(dirtied.values())
    await this.#orWithout(() => counts.save(), 'what sessions dirty is not counted')
  }

  /** Chooses which of the dirty blocks are to be kept. Undefined if none is. */
  async keeping(dirty: Bitmap, tree: TreeFile): Promise<((block: ProvidedBlock) => Promise<void>) | undefined> {
    const counts = this.#counts
    if (counts === undefined || counts.size === 0) return undefined
    const why = 'nothing more is kept for the next restore'
    const chosen = await this.#orWithout(async () => {
      const { blockSize } = this.#manifest
      this.#stage = Promise.resolve((await this.open()) ?? (await Stage.open(this.#directory, blockSize)))
      const stage = (await this.#stage)!
      const capacity = await stage.capacity(this.#parts.serving.stageSpace ?? STAGE_SPACE_BYTES)
      return new PreImages({ stage, counts, tree, capacity }).choose(dirty, KEEP_AT_RESTORE_BYTES / blockSize)
    }, why)
    if (chosen === undefined) return undefined
    return async ({ index, data }) => {
      if (!chosen.clear(index)) return
      const digest = await tree.leaf(index)
      const stage = await this.#stage
      const kept = await this.#orWithout(async () => (await stage?.add(digest, data)) ?? true, why)
      if (kept === undefined) chosen.clearRange(0, chosen.length)
    }
  }

  /** Makes durable what was kept. */
  async close(): Promise<void> {
    const stage = await this.#stage
    this.#stage = undefined
    await stage?.close()
  }

  /**
   * Drops what was fetched ahead, once the disk durably holds the newest release; blocks that sessions dirtied before stay, as this
   * release has them. The stage that is kept for a newer release is left alone.
   */
  async tidy(trees: TreeStore): Promise<void> {
    const { machine } = this.#parts
    const { image, release, blockSize } = this.#manifest
    if (!this.isAhead || machine.trust.view().newest(image)?.release !== release) return
    await this.#orWithout(async () => {
      const stage = await Stage.openIfThere(this.#directory, blockSize)
      if (stage === undefined) return
      await using _closed = { [Symbol.asyncDispose]: () => stage.close() }
      if (stage.count === 0) return
      const tree = await trees.open(this.#manifest)
      await using _tree = { [Symbol.asyncDispose]: () => tree.close() }
      const counts = await DirtiedCounts.load(this.#directory, this.#manifest)
      const worth = await new PreImages({ stage, counts, tree, capacity: 0 }).worthMost(DIRTIED_MAX_BLOCKS)
      await stage.retain((digest) => worth.has(toHex(digest)))
    }, 'the stage was not emptied')
  }

  get #directory(): string {
    return this.#parts.machine.state.path('stage')
  }

  get #isKeeping(): boolean {
    return this.#parts.serving.stageSpace !== 0
  }

  async #orWithout<T>(work: () => Promise<T>, what: string): Promise<T | undefined> {
    try {
      return await work()
    } catch (error) {
      if (!isMeshError(error)) throw error
      this.#parts.report({ type: 'warning', text: `${what}: ${error.message}` })
      return undefined
    }
  }
}
