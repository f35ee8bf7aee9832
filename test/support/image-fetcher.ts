import type { FetchedBlock, FetchRequest } from '../../node/exchange/ask/fetch-request.ts'
import type { BlockFetcher } from '../../node/restore/block-fetcher.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { digestOf, sameBytes } from '../../protocol/digest.ts'
import { granuleOf } from '../../protocol/granules.ts'

/** Gives what is asked for of an image, and tells as a swarm does when the rest of a block is not what it should be. */
export class ImageFetcher implements BlockFetcher {
  readonly ledger = { all: () => [], offenders: () => [] }
  received = 0
  readonly #image: Buffer

  constructor(image: Buffer) {
    this.#image = image
  }

  async *fetch({ wanted, sparse, blockSize, digestOf: expected }: FetchRequest): AsyncGenerator<FetchedBlock> {
    for (const index of wanted.values()) {
      const right = this.#image.subarray(index * blockSize, (index + 1) * blockSize)
      const granules = sparse?.granules(index)
      const received = granules === undefined ? blockSize : granules.count * GRANULE_SIZE_BYTES
      this.received += received
      if (granules === undefined) {
        yield { index, data: right, peerId: 'peer', received }
        continue
      }
      const data = await sparse!.read(index)
      for (const i of granules.values()) granuleOf(data, i).set(granuleOf(right, i))
      if (sameBytes(digestOf(data), await expected(index))) yield { index, data, granules, peerId: 'peer', received }
      else {
        this.received += blockSize
        yield { index, data: right, peerId: 'peer', received: received + blockSize, neighboursWrong: true }
      }
    }
  }
}
