/** Limits of a restore. */

/** How long a restore waits for that list once it has the tree: it does without, too. */
export const REPEATS_WAIT_MS = 1_000
/** Copying what repeats comes after all else, which is worth while if it spares so many bytes. */
export const REPEATS_WORTH_BYTES = 512 * 1024
/** Blocks found by a scan at another place than they belong that a restore remembers for copying. */
export const MAX_DISPLACED_BLOCKS = 256 * 1024
/** Bytes, and blocks (of which perhaps only parts are written), between two flushes of a restore. */
export const RESTORE_BATCH_BYTES = 8 * 1024 * 1024
export const RESTORE_BATCH_BLOCKS = 4096
/** Blocks in memory whose writes are under way, in bytes. */
export const RESTORE_WRITING_BYTES = 8 * 1024 * 1024
/** Of the blocks that a log calls clean, how many are hashed after a restore: this share, and at least so many. */
export const AUDIT_SHARE = 0.005
export const AUDIT_MIN_BLOCKS = 64
/** If nothing had to be restored the audit takes no longer than this, so that the boot goes on; `mesh up` does the rest. */
export const AUDIT_BOOT_BUDGET_MS = 50
