import { Bitmap } from '../../protocol/bitmap.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes, zeroDigest } from '../../protocol/digest.ts'
import { countGranules, granuleOf } from '../../protocol/granules.ts'
import type { Repeat } from '../../protocol/repeats.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { FetchedBlock } from '../exchange/ask/fetch-request.ts'
import { MAX_LOCATIONS_PER_DIGEST } from '../store/limits.ts'
import type { LocationIndex } from '../store/location-index.ts'
import type { TreeFile } from '../store/tree-file.ts'
import type { BlockFetcher, PeerRecords } from './block-fetcher.ts'
import type { DirtyBlocks } from './dirty-blocks.ts'
import { REPEATS_WORTH_BYTES, RESTORE_BATCH_BYTES } from './limits.ts'
import { RepeatedBlocks } from './repeated-blocks.ts'
import type { DisplacedBlocks } from './scan.ts'

/** The right content of one dirty block, verified. */
export interface ProvidedBlock {
  readonly index: number
  /** The whole block. */
  readonly data: Uint8Array
  /** Granules that have to be written; undefined for all. */
  readonly granules?: Bitmap
}

/** Gives content by its digest. The content has been hashed; undefined if it is not there. */
export interface StagedContent {
  read(digest: Digest): Promise<Uint8Array | undefined>
}

interface BlockProviderOptions {
  readonly disk: ImageDisk
  readonly tree: TreeFile
  /** Blocks to provide; the writer clears what it has written and flushed. */
  readonly dirty: DirtyBlocks
  readonly here: KnownContent
  readonly sources: OtherContent
  /** Resolves when every block that was yielded is on the disk. */
  readonly written: () => Promise<void>
  readonly signal: AbortSignal
}

/** What is known of the content of this disk. */
interface KnownContent {
  readonly displaced: DisplacedBlocks
  /** Whether the block stands here as another release has it. */
  readonly isAlike: (index: number) => boolean
  /** Places of content on this disk; undefined if reading the tree for them costs more than they spare. */
  readonly locations: LocationIndex | undefined
  /** Repeats of the image; undefined if copying them spares too little. */
  readonly repeats?: readonly Repeat[] | undefined
}

/** Content that is not on this disk. */
interface OtherContent {
  /** Content that was fetched ahead. */
  readonly stage?: StagedContent | undefined
  /** Content on other disks of this computer. */
  readonly beside?: StagedContent | undefined
  readonly fetcher: () => Promise<BlockFetcher>
}

/**
 * Decides for each dirty block where its content comes from, and gets it, the cheapest way first: zeros are known;
 * content that stands elsewhere on this disk is copied; staged content is read from the stage; the rest is fetched.
 * Each content is fetched once, however many blocks have it. Of a block that is dirty in part, or that repeats other
 * blocks in part, only the rest is fetched. Every block that is yielded has been hashed as a whole.
 */
export class BlockProvider {
  /** Blocks by where their content came from; each is counted once, when it is about to be yielded. */
  readonly counts = { zero: 0, local: 0, staged: 0, copied: 0, fetched: 0 }
  readonly deliveredBy = new Map<string, { blocks: number; bytes: number }>()
  bytesReceived = 0
  /** A block that turned out to be wrong in granules that the log called clean. */
  missed: number | undefined
  readonly #options: BlockProviderOptions
  readonly #zeros: Uint8Array
  /** Blocks to be fetched. */
  readonly #fetch: Bitmap
  /** Blocks that have the same content as a block to be fetched. */
  readonly #waiting: Bitmap
  #fetcher: BlockFetcher | undefined

  constructor(options: BlockProviderOptions) {
    this.#options = options
    this.#zeros = new Uint8Array(options.disk.blockSize)
    this.#fetch = new Bitmap(options.dirty.blocks.length)
    this.#waiting = new Bitmap(options.dirty.blocks.length)
  }

  /** Records of the peers that were asked, if any were. */
  get ledger(): PeerRecords | undefined {
    return this.#fetcher?.ledger
  }

  /**
   * Yields every dirty block once. Ends early, between two blocks, when the signal is aborted or when {@link missed} is
   * set.
   */
  async *blocks(): AsyncGenerator<ProvidedBlock> {
    yield* this.#fromHere()
    if (this.#fetch.count > 0 && !this.#isOver) yield* this.#fromPeers()
  }

  get #isOver(): boolean {
    return this.#options.signal.aborted || this.missed !== undefined
  }

  /**
   * Yields the blocks that are on this computer. A batch is gathered before any block of it is written, so that blocks
   * which only changed places are still found.
   */
  async *#fromHere(): AsyncGenerator<ProvidedBlock> {
    const most = Math.max(1, RESTORE_BATCH_BYTES / this.#zeros.byteLength)
    let found: ProvidedBlock[] = []
    for (const index of this.#options.dirty.blocks.values()) {
      if (this.#isOver) break
      const block = await this.#find(index)
      if (block !== undefined) found.push(block)
      if (found.length < most) continue
      yield* found
      found = []
    }
    yield* found
  }

  async #find(index: number): Promise<ProvidedBlock | undefined> {
    const digest = await this.#options.tree.leaf(index)
    if (sameBytes(digest, zeroDigest(this.#zeros.byteLength))) {
      this.counts.zero++
      return this.#known(index, this.#zeros)
    }
    const copy = await this.#copy(index, digest)
    if (copy === 'waits') return undefined
    if (copy !== undefined) {
      this.counts.local++
      return this.#known(index, copy)
    }
    const { stage, beside } = this.#options.sources
    const staged = await stage?.read(digest)
    if (staged !== undefined) {
      this.counts.staged++
      return this.#known(index, staged)
    }
    const other = await beside?.read(digest)
    if (other === undefined) {
      this.#fetch.set(index)
      return undefined
    }
    this.counts.local++
    return this.#known(index, other)
  }

  /**
   * Compares the right content of a block with the disk and yields what has to be written. Granules that the log calls
   * clean are compared, too, as they are when the others are fetched.
   */
  async #known(index: number, data: Uint8Array): Promise<ProvidedBlock> {
    const { disk, dirty } = this.#options
    const granules = dirty.granulesOf(index)
    if (granules === undefined) return { index, data }
    const found = await disk.readBlock(index)
    const wrong = new Bitmap(granules.length)
    for (let i = 0; i < countGranules(data.byteLength); i++)
      if (!sameBytes(granuleOf(found, i), granuleOf(data, i))) wrong.set(i)
    for (const i of wrong.values()) if (!granules.has(i)) this.missed ??= index
    return { index, data, granules: wrong }
  }

  /** Looks for the content on this disk. `waits`: a block to be fetched has the same content. */
  async #copy(index: number, digest: Digest): Promise<Uint8Array | 'waits' | undefined> {
    const { dirty, here } = this.#options
    const { displaced, locations } = here
    let tries = 0
    if (locations !== undefined)
      for await (const same of locations.find(digest)) {
        if (this.#fetch.has(same)) {
          this.#waiting.set(index)
          return 'waits'
        }
        if (tries++ === MAX_LOCATIONS_PER_DIGEST) break
        if (same === index || dirty.blocks.has(same)) continue
        const data = await this.#readIf(same, digest)
        if (data !== undefined) return data
      }
    const place = displaced.find(digest)
    return place === undefined ? undefined : await this.#readIf(place, digest)
  }

  async #readIf(index: number, digest: Digest): Promise<Uint8Array | undefined> {
    const data = await this.#options.disk.readBlock(index)
    return sameBytes(digestOf(data), digest) ? data : undefined
  }

  /** Fetches. Blocks that repeat others come last, when the others are on the disk. */
  async *#fromPeers(): AsyncGenerator<ProvidedBlock> {
    const repeated = this.#findRepeated()
    if (repeated === undefined) {
      yield* this.#fetchBlocks(this.#fetch)
      return
    }
    const first = this.#fetch.copy()
    for (const index of repeated.blocks.values()) first.clear(index)
    yield* this.#fetchBlocks(first)
    if (this.#isOver) return
    await this.#options.written()
    yield* this.#fromRepeats(repeated)
  }

  /** The blocks that repeat others; undefined if copying would spare too little. */
  #findRepeated(): RepeatedBlocks | undefined {
    const { here, disk, dirty } = this.#options
    const { repeats, isAlike } = here
    if (repeats === undefined) return undefined
    const fetch = new Bitmap(this.#fetch.length)
    // A block that stands here as another release has it is left out: fewer bytes changed in it than do not repeat.
    for (const index of this.#fetch.values())
      if (dirty.granulesOf(index) === undefined && !isAlike(index)) fetch.set(index)
    const repeated = new RepeatedBlocks({ repeats, disk, fetch, uncertain: this.#waiting })
    return repeated.copied * GRANULE_SIZE_BYTES < REPEATS_WORTH_BYTES ? undefined : repeated
  }

  /**
   * Yields blocks that repeat others. Blocks that can be copied as a whole are copied; for the others the missing
   * granules are fetched.
   */
  async *#fromRepeats(repeated: RepeatedBlocks): AsyncGenerator<ProvidedBlock> {
    const rest = repeated.blocks.copy()
    for (const index of repeated.blocks.values()) {
      if (this.#isOver) return
      if (repeated.missing(index).count > 0) continue
      const data = await repeated.read(index)
      const digest = await this.#options.tree.leaf(index)
      if (!sameBytes(digestOf(data), digest)) continue
      rest.clear(index)
      this.counts.copied++
      yield { index, data }
      yield* this.#twins(index, data)
    }
    yield* this.#fetchBlocks(rest, repeated)
  }

  /**
   * `repeated` says which granules of these blocks can be copied. A block that was copied as a whole and came out wrong
   * is fetched as a whole.
   */
  async *#fetchBlocks(wanted: Bitmap, repeated?: RepeatedBlocks): AsyncGenerator<ProvidedBlock> {
    if (wanted.count === 0 || this.#isOver) return
    const { tree, disk, dirty, here, sources, signal } = this.#options
    this.#fetcher ??= await sources.fetcher()
    const missing = (index: number): Bitmap | undefined => {
      const granules = repeated?.missing(index)
      return granules === undefined || granules.count === 0 ? undefined : granules
    }
    const request = {
      root: tree.root,
      level: 0,
      blockSize: disk.blockSize,
      wanted,
      digestOf: (index: number) => tree.leaf(index),
      sparse:
        repeated === undefined
          ? {
              granules: (index: number) => dirty.granulesOf(index),
              read: (index: number) => disk.readBlock(index),
              isAlike: here.isAlike,
            }
          : { granules: missing, read: (index: number) => repeated.read(index) },
    }
    for await (const block of this.#fetcher.fetch(request, signal)) {
      const { index, data, granules } = block
      this.#count(block)
      if (repeated === undefined && block.neighboursWrong === true) this.missed ??= index
      // All of a block that was put together has to be written: none of it stands in its place yet.
      yield { index, data, ...(granules === undefined || repeated !== undefined ? {} : { granules }) }
      if (this.missed !== undefined) return
      yield* this.#twins(index, data)
    }
  }

  /** Yields the waiting blocks with the same content. */
  async *#twins(index: number, data: Uint8Array): AsyncGenerator<ProvidedBlock> {
    const { tree, here } = this.#options
    const { locations } = here
    if (this.#waiting.count === 0 || locations === undefined) return
    for await (const same of locations.find(await tree.leaf(index))) {
      if (!this.#waiting.clear(same)) continue
      this.counts.copied++
      yield this.#known(same, data)
    }
  }

  #count({ peerId, received }: FetchedBlock): void {
    this.counts.fetched++
    this.bytesReceived += received
    const peer = this.deliveredBy.get(peerId) ?? { blocks: 0, bytes: 0 }
    this.deliveredBy.set(peerId, { blocks: peer.blocks + 1, bytes: peer.bytes + received })
  }
}
