/** What the threads of a HashPool are asked, and what they answer. */

/** A part of a disk: from byte `offset`, `length` bytes, in blocks of `blockSize`. */
export interface HashRun {
  readonly path: string
  readonly offset: number
  readonly length: number
  readonly blockSize: number
  /** Set if anchors are looked for: the `bits` of {@link AnchorGatherer}. */
  readonly anchorBits?: number | undefined
}

/** A run to hash, as the pool asks a thread; `id` comes back in the reply. */
export interface HashRequest extends HashRun {
  readonly id: number
  /** Runs of one scan read through one opening of the disk. */
  readonly scan: number
}

/** Why a run could not be hashed. `offset`: byte of the disk at which the read failed. */
export interface HashFailure {
  readonly doing: 'opening' | 'reading'
  readonly offset: number
  /** The errno name, if the system reported the failure. */
  readonly code?: string
  readonly message: string
}

/** Digests of a run, and its anchors if they were asked for. */
export interface HashedRun {
  readonly digests: Uint8Array
  /** Pairs as {@link AnchorGatherer} gives them; numbers of granules count from the beginning of the run. */
  readonly anchors?: Uint32Array
}

/** What a thread answers to the request with the same `id`: digests, or a failure. */
export type HashReply = ({ readonly id: number } & HashedRun) | { readonly id: number; readonly failure: HashFailure }
