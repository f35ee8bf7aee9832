import type { Bitmap } from '../../protocol/bitmap.ts'
import { MAX_LOCATIONS_PER_DIGEST } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes } from '../../protocol/digest.ts'
import { isMeshError } from '../../protocol/errors.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import { type ByteCount, byteCount } from '../../protocol/units.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { Holding, HoldingChange, Position } from './block-source.ts'
import { LocationIndex } from './location-index.ts'
import type { TreeFile } from './tree-file.ts'

/**
 * Serves an image straight from the disk that holds it: every block is read and hashed before it is given out, so a
 * block that changed is noticed, not served. `held` says which blocks are believed to be right.
 */
export class DiskSource implements Holding {
  readonly root: Digest
  readonly size: ByteCount
  readonly blockSize: ByteCount
  readonly tree: TreeFile
  readonly disk: ImageDisk
  readonly #held: Bitmap
  readonly #listeners = new Set<(change: HoldingChange) => void>()
  /** Told of a block that was held and is not what it should be; it is no longer held then. */
  onMismatch: ((index: number) => void) | undefined
  #index: Promise<LocationIndex> | undefined
  /** Blocks whose state changed since the listeners were last told. */
  #touched: number[] = []

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

  get heldCount(): number {
    return this.#held.count
  }

  async get(digest: Digest, hint: Position): Promise<Uint8Array | undefined> {
    const expected = await this.tree.digestOf(hint.level, hint.index)
    const hinted = expected !== undefined && sameBytes(expected, digest)
    if (hint.level > 0) return hinted ? this.tree.page(hint.level, hint.index) : undefined
    if (hinted && this.#held.has(hint.index)) {
      const block = await this.#readProven(hint.index, digest)
      if (block !== undefined) return block
    }
    let tries = 0
    for await (const index of (await this.#locations()).find(digest)) {
      if (!this.#held.has(index)) continue
      if (tries++ === MAX_LOCATIONS_PER_DIGEST) break
      const block = await this.#readProven(index, digest)
      if (block !== undefined) return block
    }
    return undefined
  }

  /** The block was verified and flushed: it can be served. */
  gained(index: number): void {
    if (this.#held.set(index)) this.#changed(index)
  }

  /** The block no longer has its content: it is not served until it is restored. */
  lost(index: number): void {
    if (this.#held.clear(index)) this.#changed(index)
  }

  onChange(listener: (change: HoldingChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Made when a block is first asked for that is not where it was expected; most machines never need it. */
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

  async #readProven(index: number, digest: Digest): Promise<Uint8Array | undefined> {
    // A block that cannot be read is as lost as one that changed.
    const block = await this.disk.readBlock(index).catch((error: unknown) => {
      if (isMeshError(error, 'DISK_IO')) return undefined
      throw error
    })
    if (block !== undefined && sameBytes(digestOf(block), digest)) return block
    if (this.#held.has(index)) {
      this.lost(index)
      this.onMismatch?.(index)
    }
    return undefined
  }

  /** Changes within one turn of the event loop reach the listeners together, as they stand at its end. */
  #changed(index: number): void {
    this.#touched.push(index)
    if (this.#touched.length > 1) return
    setImmediate(() => {
      const touched = this.#touched
      this.#touched = []
      const gained = RangeSet.from(touched.filter((i) => this.#held.has(i)).map((i) => [i, i + 1]))
      const lost = RangeSet.from(touched.filter((i) => !this.#held.has(i)).map((i) => [i, i + 1]))
      for (const listener of this.#listeners) listener({ gained, lost })
    })
  }
}
