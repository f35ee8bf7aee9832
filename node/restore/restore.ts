/**
 * The folder node/restore brings a disk back to a release; `restore` below is the order of its steps.
 * - Which blocks: `dirty-blocks`, from the write log (`moved-log` if it speaks of another release) or from a `scan`.
 * - Where from: `block-provider` looks on this computer first (`repeated-blocks` for parts of blocks), then asks a
 *   `BlockFetcher`, which is the swarm of node/exchange. `tree-fetch` gets the hash tree the same way.
 * - Onto the disk: `block-writer` writes, flushes, and clears the log.
 * - Afterwards: `audit` checks a sample of what the log calls clean, `receipt` says what was done; `verify` is `mesh verify`.
 */

import { pipe } from 'it-pipe'
import { Bitmap } from '../../protocol/bitmap.ts'
import { REPEATS_LEVEL } from '../../protocol/constants.ts'
import { type Digest, sameBytes, toHex, zeroDigest } from '../../protocol/digest.ts'
import { isMeshError, MeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { decodeRepeats, type Repeat } from '../../protocol/repeats.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import type { HashPool } from '../disk/hash-pool.ts'
import { ImageDisk } from '../disk/image-disk.ts'
import type { ReportProgress } from '../disk/progress.ts'
import { DiskSource } from '../store/disk-source.ts'
import { LocationIndex } from '../store/location-index.ts'
import type { TreeFacts, TreeFile } from '../store/tree-file.ts'
import type { TreeStore } from '../store/tree-store.ts'
import type { VerifiedManifest } from '../trust/verified-manifest.ts'
import type { LogState, WriteLog } from '../writelog/write-log.ts'
import { audit } from './audit.ts'
import type { BlockFetcher } from './block-fetcher.ts'
import { BlockProvider, type ProvidedBlock, type StagedContent } from './block-provider.ts'
import { BlockWriter } from './block-writer.ts'
import { DirtyBlocks } from './dirty-blocks.ts'
import { assertFits } from './fit.ts'
import { AUDIT_BOOT_BUDGET_MS } from './limits.ts'
import { movedLog } from './moved-log.ts'
import type { RestoreResult } from './restore-result.ts'
import { type Names, RestoreTally } from './restore-tally.ts'
import { DisplacedBlocks, scanDisk } from './scan.ts'
import { ensureTree } from './tree-fetch.ts'

/** What one restore works with. The restore closes none of it. */
export interface RestoreOptions {
  readonly manifest: VerifiedManifest
  readonly target: RestoreTarget
  readonly sources: RestoreSources
  readonly steps: RestoreSteps
  readonly pool: HashPool
  readonly names: Names
  readonly progress: ReportProgress
  readonly signal: AbortSignal
  /** Random numbers in [0, 1) that choose the blocks of the audit. */
  readonly random: () => number
  /** Unix ms; only the beginning is read from it. @default Date.now */
  readonly now?: () => number
}

/** What is written to. */
interface RestoreTarget {
  /** The disk, opened for writing. */
  readonly device: BlockDevice
  readonly log: WriteLog
  /** Why the log must not be believed, whatever it says. */
  readonly doubt?: string | undefined
}

/** Where content may come from. */
interface RestoreSources {
  readonly trees: TreeStore
  /** Other releases whose trees may be here. */
  readonly others?: readonly TreeFacts[]
  /** Content that is kept beside the disk: what was fetched ahead, and pre-images. */
  readonly stage?: StagePlace | undefined
  /**
   * Content on other disks of this computer. It is used if so much is dirty that reading the trees of those disks is
   * worth it.
   */
  readonly beside?: StagedContent | undefined
  /** Connects to peers. A restore that needs nothing from peers never calls it, and never touches the network. */
  readonly fetcher: () => Promise<BlockFetcher>
}

/** Content that is kept beside the disk. */
export interface StagePlace {
  /** The disk does not hold this release yet. So staging has left out what stands on the disk, and the restore has to look for it there. */
  readonly isAhead: boolean
  /** Called only if something is dirty. Undefined if there is none. */
  open(): Promise<
    (StagedContent & { /** As far as is known without reading it. */ has(digest: Digest): boolean }) | undefined
  >
}

/** What a restore is about to write. */
export interface DirtiedBlocks {
  /** Blocks that may be wrong. */
  readonly blocks: RangeSet
  /** Blocks of these that stand on the disk as another release has them; undefined if the log speaks of this release, or of none. */
  readonly alike: RangeSet | undefined
}

/** What the caller does at certain steps of a restore. */
interface RestoreSteps {
  /**
   * Set if the disk may stay at another release that it holds. It is called before anything is changed, with the blocks
   * that are not on this machine. If it throws, the restore ends with that error.
   */
  readonly beforeMoving?: ((missing: Bitmap) => Promise<void>) | undefined
  /** Called before the first byte is written to the disk. What it does must be durable when it resolves. */
  readonly beforeWriting: (dirtied: DirtiedBlocks) => Promise<void>
  /**
   * Called after that. Returns what keeps the content of blocks beside the disk as they come, verified, or undefined. It fails only by
   * bugs.
   */
  readonly keeping?: (dirty: Bitmap, tree: TreeFile) => Promise<((block: ProvidedBlock) => Promise<void>) | undefined>
  /** Called when verified blocks of this disk can be served to others. Serving ends with the restore. */
  readonly serving?: (source: DiskSource) => void
  /**
   * Asks peers whether the log is the newest one, if the network was needed anyway: undefined if nobody can tell, or with `doubt` why
   * it is not. The restore then scans the whole disk.
   */
  readonly askPeers?: () => Promise<PeersWord>
  /** Waits as long as others need this machine as a source. */
  readonly handOver?: () => Promise<void>
  /** Called with a block that the log called clean and that was wrong. The restore then scans the whole disk. */
  readonly onLogMiss?: (block: number) => void
}

/**
 * Brings a disk back to a release: which blocks → where from → fetch → verify → write → flush → clear the log. With a
 * log that can be believed, the restore looks at what the log calls dirty and at a sample of the rest. Any doubt ends
 * in a scan of the disk. A restore that was killed at any moment is simply run again. Errors: DISK_TOO_SMALL and DISK_SECTORS (nothing
 * was changed), DISK_IO, BLOCKS_UNAVAILABLE, PEERS_UNREACHABLE, INTERRUPTED. Blocks that came before an error are
 * written, flushed and cleared in the log.
 */
export async function restore(options: RestoreOptions): Promise<RestoreResult> {
  const { target, manifest, sources, steps, now = Date.now } = options
  const { device } = target
  const startedAt = now()
  // The clock may be set during a restore, as it often is after a boot, so the time that it took is not read from it.
  const begun = performance.now()
  assertFits(device, manifest)
  const opened = await openLog(target)
  const { tree, received } = await ensureTree({ ...options, ...sources, facts: manifest })
  try {
    const { logState, ...moved } = await moveLog(options, opened, tree)
    const disk = new ImageDisk(device, manifest)
    const tally = new RestoreTally({
      ...options,
      tree,
      disk,
      startedAt,
      received,
      logState,
      movedFrom: moved.movedFrom,
    })
    // Peers may have the tree before it is known which blocks are here.
    steps.serving?.(new DiskSource({ disk, tree, held: new Bitmap(tree.geometry.blockCount) }))
    const run = new RestoreRun(options, tree, disk, tally, moved)
    if (logState.state === 'unknown') await run.fromScan()
    else await run.fromLog()
    const result = tally.result(startedAt + Math.round(performance.now() - begun))
    await steps.handOver?.()
    return result
  } finally {
    await tree.close()
  }
}

/** What peers say of the log; undefined if nobody can tell. */
type PeersWord = { readonly doubt?: string } | undefined

/** What is known once a log has been moved from another release. */
interface Moved {
  readonly movedFrom?: number
  /** Blocks that stand on the disk as that release has them. */
  readonly alike?: RangeSet
  /** Places of content on the disk, if they had to be read. */
  readonly places?: LocationIndex | undefined
}

/** Opens the log. A doubt is made durable before anything is done about it. */
async function openLog({ log, doubt }: RestoreTarget): Promise<LogState> {
  const state = await log.open()
  if (state.state === 'unknown' || doubt === undefined) return state
  await log.doubt(doubt)
  return { state: 'unknown', reason: doubt }
}

/**
 * Moves a log of another release, whose tree is here, to this one: the log then holds what differs between the two as
 * well. It begins anew with that, durably, before anything is written. From then on it speaks of this release, whatever
 * happens.
 */
async function moveLog(
  options: RestoreOptions,
  state: LogState,
  tree: TreeFile,
): Promise<Moved & { logState: LogState }> {
  const { manifest, target, sources } = options
  const { log } = target
  const { others = [], trees } = sources
  if (state.state !== 'unknown' || state.against === undefined) return { logState: state }
  const { release, root } = state.against
  const other = others.find((facts) => toHex(facts.root) === root)
  const moved = await movedLog(log, other, tree, trees)
  if (moved === undefined) return { logState: state }
  const { dirty, alike } = moved
  const places = await beforeMoving(options, tree, DirtyBlocks.fromLog(dirty, log.unitSize, manifest).blocks)
  await log.reset(dirty)
  return { logState: { state: 'dirty' }, movedFrom: release, alike, places }
}

/**
 * Asks whether to go on if blocks are missing on this machine: a disk at an older release is better than a disk between
 * two releases. Returns the places of content if it had to read them.
 */
async function beforeMoving(
  { steps: { beforeMoving: ask }, sources }: RestoreOptions,
  tree: TreeFile,
  dirty: Bitmap,
): Promise<LocationIndex | undefined> {
  if (ask === undefined || dirty.count === 0) return undefined
  const zero = zeroDigest(tree.geometry.blockSize)
  const stage = await sources.stage?.open()
  const missing = dirty.copy()
  for (const index of dirty.values()) {
    const digest = await tree.leaf(index)
    if (sameBytes(digest, zero) || stage?.has(digest) === true) missing.clear(index)
  }
  if (missing.count === 0) return undefined
  // This reads the whole tree, so it is not done for a release that is staged.
  const places = await LocationIndex.build(tree)
  for (const index of missing.copy().values())
    if (await stands(places, Uint8Array.from(await tree.leaf(index)), dirty)) missing.clear(index)
  if (missing.count > 0) await ask(missing)
  return places
}

/** Whether a block that is not dirty has this content. */
async function stands(places: LocationIndex, digest: Digest, dirty: Bitmap): Promise<boolean> {
  for await (const index of places.find(digest)) if (!dirty.has(index)) return true
  return false
}

/** One restore under way, once it has the tree. */
class RestoreRun {
  readonly #options: RestoreOptions
  readonly #tree: TreeFile
  readonly #disk: ImageDisk
  readonly #tally: RestoreTally
  readonly #alike: RangeSet | undefined
  #places: LocationIndex | undefined
  #told: Promise<PeersWord> | undefined

  constructor(options: RestoreOptions, tree: TreeFile, disk: ImageDisk, tally: RestoreTally, moved: Moved) {
    this.#options = options
    this.#tree = tree
    this.#disk = disk
    this.#tally = tally
    this.#alike = moved.alike
    this.#places = moved.places
  }

  async fromLog(): Promise<void> {
    const { target, steps, manifest } = this.#options
    const { log } = target
    const dirty = DirtyBlocks.fromLog(await log.dirty(), log.unitSize, manifest)
    const clean = this.#others(dirty)
    const missed = (await this.#putRight(dirty, new DisplacedBlocks())) ?? (await this.#audit(clean))
    const told = missed === undefined ? await this.#askPeers() : undefined
    if (missed === undefined && told?.doubt === undefined) {
      this.#tally.peersAgree = told !== undefined
      return this.#finish(dirty)
    }
    this.#tally.missed = missed
    this.#tally.doubt = told?.doubt
    if (missed !== undefined) steps.onLogMiss?.(missed)
    await log.doubt(told?.doubt ?? `block ${missed} changed without the log’s knowledge`)
    await this.fromScan()
  }

  /**
   * Restores what a scan of the whole disk finds. Once the result of the scan is durable in the log, a restore that is
   * cut off goes on from there.
   */
  async fromScan(): Promise<void> {
    const { target, manifest } = this.#options
    const { log, device } = target
    const {
      dirty: blocks,
      displaced,
      bytesRead,
    } = await scanDisk({
      ...this.#options,
      path: device.path,
      tree: this.#tree,
      preserve: manifest.preserve,
      phase: 'scan',
    })
    this.#tally.bytesRead += bytesRead
    const dirty = DirtyBlocks.fromScan(blocks)
    this.#places ??= await beforeMoving(this.#options, this.#tree, blocks)
    await log.reset(dirty.asUnits(log.unitSize, manifest.blockSize))
    await this.#putRight(dirty, displaced)
    // They may know more than this machine of its own receipts. The disk was read already.
    await this.#askPeers()
    await this.#finish(dirty)
  }

  /** Asks once. */
  #askPeers(): Promise<PeersWord> {
    this.#told ??= this.#options.steps.askPeers?.() ?? Promise.resolve(undefined)
    return this.#told
  }

  /** Begins the log anew when every block is right and flushed, if there was anything in the log. */
  async #finish({ blocks }: DirtyBlocks): Promise<void> {
    this.#tally.left = blocks.count
    if (blocks.count === 0 && this.#tally.restored > 0) await this.#options.target.log.reset(RangeSet.empty)
  }

  /** Writes every dirty block anew. Returns a block that was wrong though the log called it clean, if there was one. */
  async #putRight(dirty: DirtyBlocks, displaced: DisplacedBlocks): Promise<number | undefined> {
    const { target, steps, sources, signal } = this.#options
    const { log, device } = target
    const count = dirty.blocks.count
    if (count === 0) return undefined
    const source = new DiskSource({ disk: this.#disk, tree: this.#tree, held: this.#others(dirty) })
    const report = (): void => this.#progress(count - dirty.blocks.count, count)
    const stage = await sources.stage?.open()
    const writer = new BlockWriter({ disk: this.#disk, log, dirty: dirty.blocks, source, report })
    const provider = new BlockProvider({
      disk: this.#disk,
      tree: this.#tree,
      dirty,
      here: {
        displaced,
        isAlike: (index) => this.#alike?.has(index) === true,
        locations: await this.#locations(dirty, stage !== undefined && sources.stage?.isAhead === true),
        repeats: this.#isMuch(dirty) ? await repeatsOf(this.#tree) : undefined,
      },
      sources: { stage, beside: this.#isMuch(dirty) ? sources.beside : undefined, fetcher: sources.fetcher },
      written: () => writer.written(),
      signal,
    })
    this.#tally.providers.push(provider)
    await steps.beforeWriting({ blocks: dirty.blocks.toRanges(), alike: this.#alike })
    const keep = await steps.keeping?.(dirty.blocks, this.#tree)
    steps.serving?.(source)
    await pipe(
      () => provider.blocks(),
      (blocks) => keeping(blocks, keep),
      (blocks) => writer.write(blocks),
    )
    if (signal.aborted) throw new MeshError('INTERRUPTED', `the restore of ${device.path} was interrupted`)
    this.#tally.restored += count - dirty.blocks.count
    return provider.missed
  }

  /**
   * Places of content on the disk. Reading them costs reading the tree. That is worth it if more bytes than the tree
   * has are dirty, and for a staged release: staging left out the content that stands on the disk.
   */
  async #locations(dirty: DirtyBlocks, isStaged: boolean): Promise<LocationIndex | undefined> {
    if (this.#places === undefined && (this.#isMuch(dirty) || isStaged))
      this.#places = await LocationIndex.build(this.#tree)
    return this.#places
  }

  /** Whether more bytes have to be restored than the tree has. */
  #isMuch(dirty: DirtyBlocks): boolean {
    const { blockSize, fileSize } = this.#tree.geometry
    return dirty.bytes(blockSize) >= fileSize
  }

  /**
   * Checks a sample of the clean blocks. If something was restored the boot waits anyway, so the whole sample is read.
   */
  async #audit(clean: Bitmap): Promise<number | undefined> {
    const { random, signal } = this.#options
    const budget = this.#tally.restored === 0 ? { budgetMs: AUDIT_BOOT_BUDGET_MS } : {}
    const { audited, wrong } = await audit({ disk: this.#disk, tree: this.#tree, clean, random, signal, ...budget })
    this.#tally.audited += audited
    return wrong
  }

  /** Blocks that are neither dirty nor preserved. */
  #others(dirty: DirtyBlocks): Bitmap {
    const others = new Bitmap(dirty.blocks.length)
    others.setRange(0, others.length)
    for (const set of [dirty.blocks.toRanges(), this.#options.manifest.preserve])
      for (const [start, end] of set.runs()) others.clearRange(start, end)
    return others
  }

  #progress(done: number, total: number): void {
    const { blockSize } = this.#disk
    this.#options.progress({ phase: 'restore', doneBytes: done * blockSize, totalBytes: total * blockSize })
  }
}

/** Passes blocks on, and keeps them beside the disk while they are written. */
async function* keeping(
  blocks: AsyncIterable<ProvidedBlock>,
  keep: ((block: ProvidedBlock) => Promise<void>) | undefined,
): AsyncGenerator<ProvidedBlock> {
  for await (const block of blocks) {
    yield block
    await keep?.(block)
  }
}

/** The repeats of an image, if the list of them is here and whole. */
async function repeatsOf(tree: TreeFile): Promise<Repeat[] | undefined> {
  try {
    return decodeRepeats(await tree.page(REPEATS_LEVEL, 0), tree.geometry.size)
  } catch (error) {
    if (!isMeshError(error)) throw error
    return undefined
  }
}
