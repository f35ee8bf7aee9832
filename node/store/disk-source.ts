import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Bitmap } from '../../protocol/bitmap.ts'
import { type Digest, digestOf, sameBytes } from '../../protocol/digest.ts'
import { isMeshError } from '../../protocol/errors.ts'
import type { RangeSet } from '../../protocol/ranges.ts'
import { type ByteCount, byteCount } from '../../protocol/units.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { ContentRequest, Deliver, Holding, HoldingChange } from './block-source.ts'
import { ChangeTeller } from './change-teller.ts'
import { MAX_LOCATIONS_PER_DIGEST, SERVE_READ_BYTES, SERVE_SLICE_MS } from './limits.ts'
import { LocationIndex } from './location-index.ts'
import type { TreeFile } from './tree-file.ts'

/**
 * Serves an image from the disk that holds it. Every block is read and hashed before it is given out, so a block that
 * has changed is noticed and not served. `held` are the blocks that are believed to be right.
 */
export class DiskSource implements Holding {
  readonly root: Digest
  readonly size: ByteCount
  readonly blockSize: ByteCount
  readonly tree: TreeFile
  readonly disk: ImageDisk
  readonly #held: Bitmap
  readonly #changes = new ChangeTeller((index) => this.#held.has(index))
  /** Called with a block that was held and has other content. The block is no longer held then. */
  onMismatch: ((index: number) => void) | undefined
  #index: Promise<LocationIndex> | undefined

  constructor(options: { disk: ImageDisk; tree: TreeFile; held: Bitmap }) {
    this.disk = options.disk
    this.#held = options.held
    this.tree = options.tree
    this.root = options.tree.root
    this.size = byteCount(options.tree.geometry.size)
    this.blockSize = byteCount(options.tree.geometry.blockSize)
  }

  held(): RangeSet {
    return this.#held.toRanges()
  }

  holdsBlock(index: number): boolean {
    return this.#held.has(index)
  }

  get heldCount(): number {
    return this.#held.count
  }

  async getMany(requests: readonly ContentRequest[], deliver: Deliver): Promise<void> {
    const placed: Placed[] = []
    const elsewhere: Placed[] = []
    for (const [at, { digest, level, index }] of requests.entries()) {
      const expected = await this.tree.digestOf(level, index).catch(absent)
      const hinted = expected !== undefined && sameBytes(expected, digest)
      if (level > 0) deliver(at, hinted ? await this.tree.page(level, index).catch(absent) : undefined)
      else if (hinted && this.#held.has(index)) placed.push({ at, index, digest })
      else elsewhere.push({ at, index, digest })
    }
    await this.#readPlaced(placed, (one, block) => {
      if (block === undefined) elsewhere.push(one)
      else deliver(one.at, block)
    })
    for (const { at, digest } of elsewhere) deliver(at, await this.#find(digest).catch(absent))
  }

  async has(digest: Digest): Promise<boolean> {
    for await (const _ of this.places(digest)) return true
    return false
  }

  /** Held blocks with this content, in ascending order. Errors: TREE_CORRUPT. */
  async *places(digest: Digest): AsyncGenerator<number> {
    for await (const index of (await this.#locations()).find(digest)) if (this.#held.has(index)) yield index
  }

  /** Notes that the block was verified and written: it can be served. */
  gained(index: number): void {
    if (this.#held.set(index)) this.#changes.changed(index)
  }

  /** Notes that the block has lost its content: it is not served until it is restored. */
  lost(index: number): void {
    if (this.#held.clear(index)) this.#changes.changed(index)
  }

  onChange(listener: (change: HoldingChange) => void): () => void {
    return this.#changes.onChange(listener)
  }

  /**
   * The index of places. It is made when a block is first asked for that is not where it was expected; most machines
   * never need it.
   */
  #locations(): Promise<LocationIndex> {
    if (this.#index === undefined) {
      this.#index = LocationIndex.build(this.tree)
      // A tree that could not be read now may be readable the next time.
      this.#index.catch(() => {
        this.#index = undefined
      })
    }
    return this.#index
  }

  /** Looks for the same content at other places. */
  async #find(digest: Digest): Promise<Uint8Array | undefined> {
    let tries = 0
    for await (const index of this.places(digest)) {
      if (tries++ === MAX_LOCATIONS_PER_DIGEST) break
      let found: Uint8Array | undefined
      await this.#readPlaced([{ at: 0, index, digest }], (_, block) => {
        found = block
      })
      if (found !== undefined) return found
    }
    return undefined
  }

  /**
   * Reads blocks in one sweep over the disk. Blocks that the page cache has are taken at once; the others are waited
   * for together.
   */
  async #readPlaced(placed: Placed[], take: (one: Placed, block: Uint8Array | undefined) => void): Promise<void> {
    const under: Promise<void>[] = []
    let sliceAt = performance.now()
    for (const run of neighbours(placed, SERVE_READ_BYTES / this.blockSize)) {
      const first = run[0]!.index
      const blocks = this.disk.readBlocks(first, run.at(-1)!.index - first + 1)
      if (blocks instanceof Uint8Array) this.#prove(run, blocks, take)
      else under.push(this.#await(run, blocks, take))
      if (performance.now() - sliceAt < SERVE_SLICE_MS) continue
      await nextTurn()
      sliceAt = performance.now()
    }
    await Promise.all(under)
  }

  async #await(
    run: readonly Placed[],
    reading: Promise<Uint8Array>,
    take: (one: Placed, block: Uint8Array | undefined) => void,
  ): Promise<void> {
    const blocks = await reading.catch(unreadable)
    if (blocks !== undefined) return this.#prove(run, blocks, take)
    // A block that cannot be read is as lost as one that has changed. Its neighbours are read one by one.
    for (const one of run) {
      const block = await this.disk.readBlock(one.index).catch(unreadable)
      if (block !== undefined) this.#prove([one], block, take)
      else {
        this.#mismatch(one.index)
        take(one, undefined)
      }
    }
  }

  /**
   * Hashes what was read and hands out what is right. `blocks` holds the blocks from the first of the run to its last.
   */
  #prove(run: readonly Placed[], blocks: Uint8Array, take: (one: Placed, block: Uint8Array | undefined) => void): void {
    const first = run[0]!.index
    let before: { index: number; block: Uint8Array | undefined } | undefined
    for (const one of run) {
      // Several requests may ask for the same block of the same digest, so it is hashed once.
      if (before?.index !== one.index) {
        const block = blocks.subarray((one.index - first) * this.blockSize, (one.index - first + 1) * this.blockSize)
        const right = sameBytes(digestOf(block), one.digest)
        if (!right) this.#mismatch(one.index)
        before = { index: one.index, block: right ? block : undefined }
      }
      take(one, before.block)
    }
  }

  #mismatch(index: number): void {
    if (!this.#held.has(index)) return
    this.lost(index)
    this.onMismatch?.(index)
  }
}

/** A request and the block that is believed to answer it. */
interface Placed {
  readonly at: number
  readonly index: number
  readonly digest: Digest
}

/**
 * Runs of neighbours, in the order of the disk. A run ends where the next block is neither the same nor the following
 * one, or where the read would become longer than `most` blocks.
 */
function* neighbours(placed: readonly Placed[], most: number): Generator<Placed[]> {
  let run: Placed[] = []
  for (const one of placed.toSorted((a, b) => a.index - b.index)) {
    const last = run.at(-1)
    if (last !== undefined && (one.index > last.index + 1 || one.index >= run[0]!.index + most)) {
      yield run
      run = []
    }
    run.push(one)
  }
  if (run.length > 0) yield run
}

function unreadable(error: unknown): undefined {
  if (isMeshError(error, 'DISK_IO', 'DISK_SHRUNK')) return undefined
  throw error
}

/** A damaged tree counts as not having the content. The machine's own restore reports the damage and repairs it. */
function absent(error: unknown): undefined {
  if (isMeshError(error)) return undefined
  throw error
}
