/** Limits of choosing what to restore. */

/** Time that a restore looks for machines that hold all of a newer release; then it stays with the release on the disk. */
export const MOVE_WAIT_MS = 10_000
/** Hash trees that a lab machine keeps of each image: those of its newest releases, besides the one on the disk. */
export const TREES_KEPT = 8
