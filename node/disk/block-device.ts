/**
 * The folder node/disk is what this machine knows of disks, whoever uses them.
 * - `BlockDevice` is a disk that is open; `file-device` opens one, `image-disk` sees the part of it that an image covers.
 * - `hash-pool` hashes a disk with several threads (`hash-worker`, each with a `run-hasher`) and finds anchors meanwhile;
 *   `repeat-finder` turns anchors into what the image has twice.
 * - `disk-content` tells what a disk holds: its partition table (`gpt`) and file systems (`file-system-magic`, `blkid`).
 * - `disk-use` refuses a disk that somebody else uses (`mounts`, `open-files`, over all `disk-layers`); `kernel-disks` asks /sys.
 * - `read-disk` reads what a disk is known by (`known-disk`, `partition-table`), `compare-disks` says whether two are one, `find-disk`
 *   looks for one. Of `fixed-disks` one is laid out (`plan-disk`, `gpt-table`, `laying-mark`).
 * - `disk-facts` is what a write log needs of its disk: a `disk-mark` to know it by, and a stamp by which `disk-witness` (with the
 *   `drive-counter`) sees that it was written.
 */

import type { ByteCount, ByteOffset } from '../../protocol/units.ts'

/** Random access to a disk: a block device or a regular file. Errors: DISK_IO with path and offset, DISK_FULL. */
export interface BlockDevice {
  readonly path: string
  readonly size: ByteCount
  readonly kind: 'file' | 'block'
  /** Bytes of a logical sector, of a device that the kernel tells it of. */
  readonly sectorSize?: number
  /** Fills `into` completely from `offset`; the range must lie inside the device. */
  read(offset: ByteOffset, into: Uint8Array): Promise<void>
  /**
   * Reads at once, in the thread that calls, and returns true if it could. False says nothing, not even that a read
   * would fail: the caller then uses {@link read}. It is for callers that would rather wait a moment than pay for a
   * thread.
   */
  readNow?(offset: ByteOffset, into: Uint8Array): boolean
  /** Writes at once, as {@link readNow} reads. After false some of `data` may have been written. */
  writeNow?(offset: ByteOffset, data: Uint8Array): boolean
  /**
   * Writes all of `data`, which must not change until the promise resolves. The data is durable only after {@link
   * flush}.
   */
  write(offset: ByteOffset, data: Uint8Array): Promise<void>
  /** Resolves when everything written so far is on stable storage (fdatasync). */
  flush(): Promise<void>
  close(): Promise<void>
}
