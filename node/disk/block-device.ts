import type { ByteCount, ByteOffset } from '../../protocol/units.ts'

/** Random access to a disk: a block device or a regular file. Errors: DISK_IO with path and offset, DISK_FULL. */
export interface BlockDevice {
  readonly path: string
  readonly size: ByteCount
  readonly kind: 'file' | 'block'
  /** Fills `into` completely from `offset`; the range must lie inside the device. */
  read(offset: ByteOffset, into: Uint8Array): Promise<void>
  /**
   * {@link read}, here and now: true if it was done. False says nothing, not even that it would fail; then use {@link read}.
   * For callers that would rather wait a moment than pay for a thread.
   */
  readNow?(offset: ByteOffset, into: Uint8Array): boolean
  /** {@link write} of the same kind; on false some of it may have been written. */
  writeNow?(offset: ByteOffset, data: Uint8Array): boolean
  /** Writes all of `data`; not durable before {@link flush}. `data` must not change until it resolves. */
  write(offset: ByteOffset, data: Uint8Array): Promise<void>
  /** Resolves when everything written so far is on stable storage (fdatasync). */
  flush(): Promise<void>
  close(): Promise<void>
}
