/** Limits of choosing what to restore. */

/** How long a restore looks for machines that have all of a newer release before it stays with the one on the disk. */
export const MOVE_WAIT_MS = 10_000
/** Hash trees that a lab machine keeps of each image: its newest releases, besides the one on the disk. */
export const TREES_KEPT = 8
