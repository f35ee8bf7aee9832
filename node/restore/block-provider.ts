import { Bitmap } from '../../protocol/bitmap.ts'
import { MAX_LOCATIONS_PER_DIGEST } from '../../protocol/constants.ts'
import { type Digest, digestOf, sameBytes, zeroDigest } from '../../protocol/digest.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { LocationIndex } from '../store/location-index.ts'
import type { TreeFile } from '../store/tree-file.ts'
import type { BlockFetcher } from './block-fetcher.ts'
import type { DisplacedBlocks } from './scan.ts'

/** The right content of one dirty block, verified. `last`: the block it was fetched for, so its buffer may be kept. */
export interface ProvidedBlock {
  readonly index: number
  readonly data: Uint8Array
}

export interface BlockProviderOptions {
  readonly disk: ImageDisk
  readonly tree: TreeFile
  /** Blocks to provide; the writer clears what it has written and flushed. */
  readonly dirty: Bitmap
  readonly displaced: DisplacedBlocks
  /** Undefined only if nothing is dirty. */
  readonly locations: LocationIndex | undefined
  readonly fetcher: () => Promise<BlockFetcher>
  readonly signal: AbortSignal
}

/**
 * Decides for each dirty block where its content comes from, and gets it, cheapest first: zeros are known; content that
 * stands elsewhere on this disk is copied; the rest is fetched, each content once however many blocks have it. Everything
 * it yields has been hashed.
 */
export class BlockProvider {
  readonly counts = { local: 0, zero: 0, fetched: 0 }
  readonly deliveredBy = new Map<string, { blocks: number; bytes: number }>()
  bytesReceived = 0
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
    this.#fetch = new Bitmap(options.dirty.length)
    this.#waiting = new Bitmap(options.dirty.length)
  }

  /** Records of the peers that were asked, if any were. */
  ledger(): readonly { readonly id: string; readonly bad: number }[] {
    return this.#fetcher?.ledger.all() ?? []
  }

  /** Every dirty block once. Ends early, between two blocks, when the signal is aborted. */
  async *blocks(): AsyncGenerator<ProvidedBlock> {
    yield* this.#fromHere()
    if (this.#fetch.count > 0 && !this.#options.signal.aborted) yield* this.#fromPeers()
  }

  async *#fromHere(): AsyncGenerator<ProvidedBlock> {
    const { dirty, tree, signal } = this.#options
    const zero = zeroDigest(this.#zeros.byteLength)
    for (const index of dirty.values()) {
      if (signal.aborted) return
      const digest = await tree.leaf(index)
      if (sameBytes(digest, zero)) {
        this.counts.zero++
        yield { index, data: this.#zeros }
        continue
      }
      const data = await this.#copy(index, digest)
      if (data === undefined) continue
      this.counts.local++
      yield { index, data }
    }
  }

  /** Content found on this disk; if there is none, the block is put down for fetching. */
  async #copy(index: number, digest: Digest): Promise<Uint8Array | undefined> {
    const { dirty, displaced, locations } = this.#options
    let tries = 0
    for await (const same of locations!.find(digest)) {
      if (this.#fetch.has(same)) {
        this.#waiting.set(index)
        return undefined
      }
      if (tries++ === MAX_LOCATIONS_PER_DIGEST) break
      if (same === index || dirty.has(same)) continue
      const data = await this.#readIf(same, digest)
      if (data !== undefined) return data
    }
    const place = displaced.find(digest)
    const data = place === undefined ? undefined : await this.#readIf(place, digest)
    if (data === undefined) this.#fetch.set(index)
    return data
  }

  async #readIf(index: number, digest: Digest): Promise<Uint8Array | undefined> {
    const data = await this.#options.disk.readBlock(index)
    return sameBytes(digestOf(data), digest) ? data : undefined
  }

  async *#fromPeers(): AsyncGenerator<ProvidedBlock> {
    const { tree, disk, signal, locations } = this.#options
    this.#fetcher = await this.#options.fetcher()
    const request = {
      root: tree.root,
      level: 0,
      blockSize: disk.blockSize,
      wanted: this.#fetch,
      digestOf: (index: number) => tree.leaf(index),
    }
    for await (const { index, data, peerId } of this.#fetcher.fetch(request, signal)) {
      this.#count(peerId, data.byteLength)
      yield { index, data }
      if (this.#waiting.count === 0) continue
      for await (const same of locations!.find(await tree.leaf(index))) {
        if (!this.#waiting.clear(same)) continue
        this.counts.local++
        yield { index: same, data }
      }
    }
  }

  #count(peerId: string, bytes: number): void {
    this.counts.fetched++
    this.bytesReceived += bytes
    const peer = this.deliveredBy.get(peerId) ?? { blocks: 0, bytes: 0 }
    this.deliveredBy.set(peerId, { blocks: peer.blocks + 1, bytes: peer.bytes + bytes })
  }
}
