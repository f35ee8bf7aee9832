/** What the threads of a HashPool are asked, and what they answer. */

/** A part of a disk: from byte `offset`, `length` bytes, in blocks of `blockSize`. */
export interface HashRun {
  readonly path: string
  readonly offset: number
  readonly length: number
  readonly blockSize: number
  /** Looks for anchors, too: granules whose fingerprint ends in so many zero bits. */
  readonly anchorBits?: number | undefined
}

export interface HashRequest extends HashRun {
  readonly id: number
  /** Runs of one scan read through one opening of the disk. */
  readonly scan: number
}

export interface HashFailure {
  readonly doing: 'opening' | 'reading'
  readonly offset: number
  /** The errno name, if the system reported the failure. */
  readonly code?: string
  readonly message: string
}

/** What a run is made of. */
export interface HashedRun {
  readonly digests: Uint8Array
  /** See {@link AnchorGatherer}; numbers count from the run's beginning. */
  readonly anchors?: Uint32Array
}

export type HashReply = ({ readonly id: number } & HashedRun) | { readonly id: number; readonly failure: HashFailure }
