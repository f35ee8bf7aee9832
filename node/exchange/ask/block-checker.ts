import type { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf, sameBytes } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { type PackedBlock, sentGranules, unpackBlock, unpackWhole, wantedBytes } from '../../../protocol/granules.ts'
import type { FetchRequest } from './fetch-request.ts'

/** What is asked for of an item. */
export interface Portion {
  /** Granules of a block; undefined: all of it. */
  readonly granules: Bitmap | undefined
  /** Whether the peer is told what stands here instead, and leaves out granules that are the same. */
  readonly alike: boolean
  /** Bytes of content that are asked for. */
  readonly size: number
}

/** What an answer is worth. */
export type Verdict =
  | {
      readonly is: 'right'
      /** The whole item. */
      readonly data: Uint8Array
      /** Granules that came; undefined: all. */
      readonly granules: Bitmap | undefined
      /** Granules that came before for this block were right, so what stands here beside them is wrong. */
      readonly neighboursWrong: boolean
      /** The peer whose granules that came before were wrong. */
      readonly liar: string | undefined
    }
  /** The peer sent wrong bytes. */
  | { readonly is: 'wrong' }
  /** Either the peer or what stands here is wrong: the whole block has to come. */
  | { readonly is: 'doubtful' }

/** Granules that made no right block together with those that stand here. */
interface Doubted {
  readonly peerId: string
  readonly content: PackedBlock
  readonly granules: Bitmap
}

/**
 * Decides which granules of a block are asked for, puts what comes together with what stands on the disk, and holds the whole
 * against its digest. A block that comes out wrong is asked for whole; then it is known who was wrong, the peer or the disk.
 */
export class BlockChecker {
  readonly #request: FetchRequest
  /** Blocks of which all is asked for, to find out whether the peer or this disk was wrong. */
  readonly #doubted = new Map<number, Doubted>()
  /** Blocks that came out wrong with what stands here, although its checks were the same: all of them is asked for. */
  readonly #unlike = new Set<number>()

  constructor(request: FetchRequest) {
    this.#request = request
  }

  /** What to ask for of an item; `far`: of a peer behind the uplink. */
  portion(index: number, far: boolean): Portion {
    const { sparse, blockSize } = this.#request
    const doubted = this.#doubted.has(index)
    const granules = doubted ? undefined : sparse?.granules(index)
    const whole = far && granules === undefined && !doubted && !this.#unlike.has(index)
    return { granules, alike: whole && sparse?.isAlike?.(index) === true, size: wantedBytes(granules, blockSize) }
  }

  /** Judges what a peer sent for a portion. Errors: PROTOCOL_VIOLATION, and what reading the disk fails with. */
  async check(peerId: string, index: number, portion: Portion, content: PackedBlock): Promise<Verdict> {
    const { digestOf: expected, sparse, blockSize } = this.#request
    if (content.kept !== undefined && !portion.alike)
      throw new MeshError('PROTOCOL_VIOLATION', 'left out what it was not told of')
    const granules = sentGranules(content, portion.granules, blockSize)
    let data: Uint8Array
    if (granules === undefined) data = unpackWhole(content, blockSize)
    else {
      data = await sparse!.read(index)
      unpackBlock(content, granules, data)
    }
    if (sameBytes(digestOf(data), await expected(index))) return this.#right(index, data, granules)
    if (content.kept !== undefined) {
      // What stands here was written meanwhile, or differs although its checks are the same.
      this.#unlike.add(index)
      return { is: 'doubtful' }
    }
    if (granules === undefined) return { is: 'wrong' }
    this.#doubted.set(index, { peerId, content, granules })
    return { is: 'doubtful' }
  }

  #right(index: number, data: Uint8Array, granules: Bitmap | undefined): Verdict {
    const doubted = this.#doubted.get(index)
    if (doubted === undefined) return { is: 'right', data, granules, neighboursWrong: false, liar: undefined }
    const claimed = Buffer.from(data)
    unpackBlock(doubted.content, doubted.granules, claimed)
    const honest = sameBytes(claimed, data)
    return { is: 'right', data, granules, neighboursWrong: honest, liar: honest ? undefined : doubted.peerId }
  }
}
