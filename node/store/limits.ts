/** Limits of hash trees, of the stage, and of reading what is offered. */

/** What is gained or lost in so short a time is told to peers in one message. */
export const HAVE_DELAY_MS = 200
/** Neighbouring blocks are read together up to this length. */
export const SERVE_READ_BYTES = 1024 * 1024
/** So long answers are made at most before the rest of the process has its turn. */
export const SERVE_SLICE_MS = 4
/** Hash pages kept in memory per open tree. */
export const TREE_CACHE_BYTES = 16 * 1024 * 1024
/** Positions of one content that are tried before it is called missing. */
export const MAX_LOCATIONS_PER_DIGEST = 16
/** What staging leaves free of the file system, and blocks it keeps at most: each takes about 100 bytes of memory. */
export const STAGE_RESERVE_BYTES = 256 * 1024 ** 2
export const STAGE_MAX_BLOCKS = 256 * 1024
