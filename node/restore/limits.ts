/** Limits of a restore. */

/** Time that a restore waits for the list of repeats once it has the tree. The list spares bytes; nothing needs it. */
export const REPEATS_WAIT_MS = 1_000
/** Blocks with repeats are fetched last, which costs time: done only if copying spares at least 512 KiB. */
export const REPEATS_WORTH_BYTES = 512 * 1024
/** Blocks in the wrong place that a scan remembers, so that they are copied and not fetched: 16 GiB in blocks of 64 KiB. */
export const MAX_DISPLACED_BLOCKS = 256 * 1024
/** Bytes, and blocks, between two flushes of the disk. Of a block perhaps only one granule of 4 KiB is written. */
export const RESTORE_BATCH_BYTES = 8 * 1024 * 1024
export const RESTORE_BATCH_BLOCKS = 4096
/** Bytes of blocks in memory that are being written. */
export const RESTORE_WRITING_BYTES = 8 * 1024 * 1024
/** Blocks that the log calls clean and that are hashed after a restore: 0.5 % of them, and at least 64. */
export const AUDIT_SHARE = 0.005
export const AUDIT_MIN_BLOCKS = 64
/** If nothing had to be restored, the audit ends after 50 ms, so that the boot goes on. `mesh up` does the rest. */
export const AUDIT_BOOT_BUDGET_MS = 50
