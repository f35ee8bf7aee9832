/** Limits of hash trees, of the stage, and of reading what is offered. */

/** A machine gathers gained and lost blocks for 200 ms and tells peers of all of them in one message. */
export const HAVE_DELAY_MS = 200
/** Neighbouring blocks that several requests ask for are read together, up to 1 MiB in one read. */
export const SERVE_READ_BYTES = 1024 * 1024
/** Milliseconds for which answers are made before the rest of the process has its turn. */
export const SERVE_SLICE_MS = 4
/** Bytes of hash pages kept in memory for each open tree: the whole tree of an image of up to 32 GiB with blocks of 64 KiB. */
export const TREE_CACHE_BYTES = 16 * 1024 * 1024
/** Places of one content that are read before the content is called missing: all of them may have changed. */
export const MAX_LOCATIONS_PER_DIGEST = 16
/** Bytes of the file system that staging leaves free for the rest of the machine. */
export const STAGE_RESERVE_BYTES = 256 * 1024 ** 2
/** Blocks that are staged at most: each takes about 100 bytes of memory, 25 MiB for all. */
export const STAGE_MAX_BLOCKS = 256 * 1024
/** A disk is copied 4 MiB at a time, which a disk reads at full speed; 64 KiB of zeros in a row become a hole of the copy. */
export const COPY_READ_BYTES = 4 * 1024 * 1024
export const COPY_HOLE_BYTES = 64 * 1024
