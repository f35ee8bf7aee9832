import type { FetchedBlock, FetchRequest } from '../../node/exchange/ask/fetch-request.ts'
import type { BlockFetcher } from '../../node/restore/block-fetcher.ts'
import { digestOf, sameBytes } from '../../protocol/digest.ts'
import { MeshError } from '../../protocol/errors.ts'
import { granuleOf, wantedBytes } from '../../protocol/granules.ts'

/** Gives blocks of an image, or wanted granules of them, as a swarm does, and fails after `limit` blocks. */
export class ImageFetcher implements BlockFetcher {
  readonly ledger = { all: () => [], offenders: () => [] }
  readonly #image: Buffer
  #left: number

  constructor(image: Buffer, limit: number) {
    this.#image = image
    this.#left = limit
  }

  async *fetch(request: FetchRequest): AsyncGenerator<FetchedBlock> {
    for (const index of request.wanted.values()) {
      if (this.#left-- === 0) throw new MeshError('BLOCKS_UNAVAILABLE', 'nobody has more')
      yield await this.#block(index, request)
    }
  }

  async #block(index: number, request: FetchRequest): Promise<FetchedBlock> {
    const { blockSize, sparse } = request
    const whole = Buffer.alloc(blockSize)
    this.#image.copy(whole, 0, index * blockSize, (index + 1) * blockSize)
    const granules = sparse?.granules(index)
    const received = wantedBytes(granules, blockSize)
    if (sparse === undefined || granules === undefined) return { index, data: whole, peerId: 'peer', received }
    const data = await sparse.read(index)
    for (const granule of granules.values()) granuleOf(data, granule).set(granuleOf(whole, granule))
    if (sameBytes(digestOf(data), await request.digestOf(index)))
      return { index, data, peerId: 'peer', received, granules }
    return { index, data: whole, peerId: 'peer', received: received + blockSize, neighboursWrong: true }
  }
}
