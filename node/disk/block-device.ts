import type { ByteCount, ByteOffset } from '../../protocol/units.ts'

/** Random access to a disk: a block device or a regular file. Errors: DISK_IO with path and offset, DISK_FULL. */
export interface BlockDevice {
  readonly path: string
  readonly size: ByteCount
  readonly kind: 'file' | 'block'
  /** Fills `into` completely from `offset`; the range must lie inside the device. */
  read(offset: ByteOffset, into: Uint8Array): Promise<void>
  /** Writes all of `data`; not durable before {@link flush}. `data` must not change until it resolves. */
  write(offset: ByteOffset, data: Uint8Array): Promise<void>
  /** Resolves when everything written so far is on stable storage (fdatasync). */
  flush(): Promise<void>
  close(): Promise<void>
}
