/** Limits of reading, hashing and comparing a disk. */

/** One read of a scan: long enough for the disk to stream, short enough to share between workers. */
export const SCAN_RUN_BYTES = 4 * 1024 * 1024
/** Most threads that hash. */
export const MAX_HASH_WORKERS = 4
/** A thread costs as much CPU time as hashing this: for less a command that hashes itself starts none. */
export const HASH_WORKER_WORTH_BYTES = 128 * 1024 * 1024
/**
 * Repeats are found by granules chosen by their content, one in two to the power of so many, more for an image of which as many
 * would be more than this; what lies around them is compared.
 */
export const MIN_ANCHOR_BITS = 2
export const MAX_ANCHORS = 1024 * 1024
/** Pairs of granules that look alike that are remembered, and how many of them may turn out not to be. */
export const MAX_REPEAT_CANDIDATES = 128 * 1024
export const MAX_REPEAT_MISSES = 1024
/** Transfers up to this length are made at once, without a thread, as long as the page cache answers. */
export const QUICK_TRANSFER_BYTES = 1024 * 1024
/** A quick transfer that ran slower than this, plus what copying costs, had to wait for the disk (an SSD takes 0.1 ms). */
export const QUICK_SLOW_MS = 0.1
export const QUICK_SLOW_MS_PER_MIB = 1
/** For this many times as long as the wait no other quick transfer is tried, so that waits take 5 % of the time at most. */
export const QUICK_PAUSE_FACTOR = 20
