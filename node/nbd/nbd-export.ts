/** A run of bytes with the same flags, in the order of the export. */
export interface Extent {
  readonly length: number
  readonly flags: number
}

/** A kind of block status an export can tell of. */
export interface MetaContext {
  readonly name: string
  /**
   * Returns 1 to `most` extents from `offset` on, which together have at most `length` bytes and may have fewer.
   * `length` is at least 1.
   */
  extents(offset: number, length: number, most: number): Extent[]
}

/** A promise of being done. Undefined means done already, and spares a promise and a turn of the event loop. */
export type DoneSoon = Promise<void> | undefined

/**
 * What an NBD server serves. All ranges lie inside the export and are not empty. Several calls may be under way at
 * once. What a call did is seen by every call that comes after it resolved. Errors may be thrown or rejected: DISK_FULL
 * reaches the client as ENOSPC, all others as EIO.
 */
export interface NbdExport {
  readonly name: string
  readonly description: string
  /** Bytes. */
  readonly size: number
  readonly readOnly: boolean
  readonly contexts: readonly MetaContext[]
  read(offset: number, into: Uint8Array): DoneSoon
  /** A write of this range is being received. {@link write} follows for each part of it, unless the client leaves. */
  announceWrite(offset: number, length: number): void
  /** Writes. `data` must not change until it resolves. */
  write(offset: number, data: Uint8Array): DoneSoon
  writeZeroes(offset: number, length: number): Promise<void>
  /** The client does not need this content any more. */
  trim(offset: number, length: number): Promise<void>
  /** Everything written so far, by whichever connection, is durable when it resolves. */
  flush(): Promise<void>
}
