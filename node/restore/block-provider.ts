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
import type { BlockFetcher } from './block-fetcher.ts'
import type { DirtyBlocks } from './dirty-blocks.ts'
import { REPEATS_WORTH_BYTES, RESTORE_BATCH_BYTES } from './limits.ts'
import { RepeatedBlocks } from './repeated-blocks.ts'
import type { DisplacedBlocks } from './scan.ts'

/** The right content of one dirty block, verified. */
export interface ProvidedBlock {
  readonly index: number
  /** All of it. */
  readonly data: Uint8Array
  /** Granules that have to be written; undefined for all. */
  readonly granules?: Bitmap
}

/** Content by digest, hashed; undefined if it is not there. */
export interface StagedContent {
  read(digest: Digest): Promise<Uint8Array | undefined>
}

interface BlockProviderOptions {
  readonly disk: ImageDisk
  readonly tree: TreeFile
  /** Blocks to provide; the writer clears what it has written and flushed. */
  readonly dirty: DirtyBlocks
  readonly displaced: DisplacedBlocks
  /** Blocks that stand here as another release has them. */
  readonly isAlike: (index: number) => boolean
  /** Undefined if looking for content on this disk costs more than it can spare. */
  readonly locations: LocationIndex | undefined
  /** Of the image; undefined if what they save is not worth looking at them. */
  readonly repeats?: readonly Repeat[] | undefined
  /** Resolves when what was taken from here is on the disk. */
  readonly written: () => Promise<void>
  /** Content that was fetched ahead. */
  readonly stage?: StagedContent | undefined
  /** Content on other disks of this computer. */
  readonly beside?: StagedContent | undefined
  readonly fetcher: () => Promise<BlockFetcher>
  readonly signal: AbortSignal
}

/**
 * Decides for each dirty block where its content comes from, and gets it, cheapest first: zeros are known; content that
 * stands elsewhere on this disk is copied; what was staged is taken from there; the rest is fetched, each content once however
 * many blocks have it, and of a block that is dirty only in part, or repeats other blocks in part, only the rest. Everything it
 * yields has been hashed, whole.
 */
export class BlockProvider {
  readonly counts = { local: 0, zero: 0, staged: 0, fetched: 0 }
  readonly deliveredBy = new Map<string, { blocks: number; bytes: number }>()
  bytesReceived = 0
  /** A block that turned out to be wrong in granules that the log called clean. */
  missed: number | undefined
  readonly #options: BlockProviderOptions
  readonly #zeros: Uint8Array
  /** To be fetched. */
  readonly #fetch: Bitmap
  /** Has the same content as a block that is to be fetched. */
  readonly #waiting: Bitmap
  #fetcher: BlockFetcher | undefined

  constructor(options: BlockProviderOptions) {
    this.#options = options
    this.#zeros = new Uint8Array(options.disk.blockSize)
    this.#fetch = new Bitmap(options.dirty.blocks.length)
    this.#waiting = new Bitmap(options.dirty.blocks.length)
  }

  /** Records of the peers that were asked, if any were. */
  ledger(): readonly { readonly id: string; readonly bad: number }[] {
    return this.#fetcher?.ledger.all() ?? []
  }

  /** Every dirty block once. Ends early, between two blocks, when the signal is aborted or a block was missed. */
  async *blocks(): AsyncGenerator<ProvidedBlock> {
    yield* this.#fromHere()
    if (this.#fetch.count > 0 && !this.#isOver) yield* this.#fromPeers()
  }

  get #isOver(): boolean {
    return this.#options.signal.aborted || this.missed !== undefined
  }

  /** A batch is gathered before any of it can be written, so that blocks which only changed places find each other. */
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
    const { stage, beside } = this.#options
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
   * A block whose right content is known: what of it has to be written. Its clean granules are looked at, too, as they are
   * when the others are fetched.
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

  /** Content found on this disk; `waits` if it is that of a block that is to be fetched. */
  async #copy(index: number, digest: Digest): Promise<Uint8Array | 'waits' | undefined> {
    const { dirty, displaced, locations } = this.#options
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

  /** What repeats other blocks comes last, when those are there. */
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

  /** Undefined if copying what repeats would spare too little. */
  #findRepeated(): RepeatedBlocks | undefined {
    const { repeats, disk, dirty, isAlike } = this.#options
    if (repeats === undefined) return undefined
    const fetch = new Bitmap(this.#fetch.length)
    // Of a block that stands here as another release has it, what changed is less than what does not repeat.
    for (const index of this.#fetch.values())
      if (dirty.granulesOf(index) === undefined && !isAlike(index)) fetch.set(index)
    const repeated = new RepeatedBlocks({ repeats, disk, fetch, uncertain: this.#waiting })
    return repeated.copied * GRANULE_SIZE_BYTES < REPEATS_WORTH_BYTES ? undefined : repeated
  }

  /** Blocks of which some are known by now to be elsewhere in the image, and only the rest is fetched. */
  async *#fromRepeats(repeated: RepeatedBlocks): AsyncGenerator<ProvidedBlock> {
    const rest = repeated.blocks.copy()
    for (const index of repeated.blocks.values()) {
      if (this.#isOver) return
      if (repeated.missing(index).count > 0) continue
      const data = await repeated.read(index)
      const digest = await this.#options.tree.leaf(index)
      if (!sameBytes(digestOf(data), digest)) continue
      rest.clear(index)
      this.counts.local++
      yield { index, data }
      yield* this.#twins(index, data)
    }
    yield* this.#fetchBlocks(rest, repeated)
  }

  /** `repeated`: how these blocks are put together, those apart of which nothing is missing and that came out wrong. */
  async *#fetchBlocks(wanted: Bitmap, repeated?: RepeatedBlocks): AsyncGenerator<ProvidedBlock> {
    if (wanted.count === 0 || this.#isOver) return
    const { tree, disk, dirty, signal, isAlike } = this.#options
    this.#fetcher ??= await this.#options.fetcher()
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
              isAlike,
            }
          : { granules: missing, read: (index: number) => repeated.read(index) },
    }
    for await (const block of this.#fetcher.fetch(request, signal)) {
      const { index, data, granules } = block
      this.#count(block)
      if (repeated === undefined && block.neighboursWrong === true) this.missed ??= index
      // Of a block that was put together, nothing stands in its place yet.
      yield { index, data, ...(granules === undefined || repeated !== undefined ? {} : { granules }) }
      if (this.missed !== undefined) return
      yield* this.#twins(index, data)
    }
  }

  /** Blocks with the same content. */
  async *#twins(index: number, data: Uint8Array): AsyncGenerator<ProvidedBlock> {
    const { tree, locations } = this.#options
    if (this.#waiting.count === 0 || locations === undefined) return
    for await (const same of locations.find(await tree.leaf(index))) {
      if (!this.#waiting.clear(same)) continue
      this.counts.local++
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
