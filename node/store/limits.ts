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
/** Bytes of the file system that staging leaves free for the rest of the machine; of a small one, such as a state partition, a quarter. */
export const STAGE_RESERVE_BYTES = 256 * 1024 ** 2
export const STAGE_RESERVE_SHARE = 0.25
/** Blocks that are staged at most: each takes about 100 bytes of memory, 25 MiB for all. */
export const STAGE_MAX_BLOCKS = 256 * 1024
/** A disk is copied 4 MiB at a time, which a disk reads at full speed; 64 KiB of zeros in a row become a hole of the copy. */
export const COPY_READ_BYTES = 4 * 1024 * 1024
export const COPY_HOLE_BYTES = 64 * 1024
/** Bytes of the stage, unless the user says otherwise. */
export const STAGE_SPACE_BYTES = 4 * 1024 ** 3
/** Blocks whose score is kept: as many as the stage has room for, 4 GiB in blocks of 64 KiB. A session that dirtied more is not counted. */
export const DIRTIED_MAX_BLOCKS = 64 * 1024
/** A file of scores is 1.3 MiB if no two neighbours have the same one; a larger file is not ours. */
export const DIRTIED_FILE_MAX_BYTES = 4 * 1024 * 1024
/** Points of a block that a session dirtied, and the share of its points that a block keeps at each restore of dirty blocks. */
export const COUNT_OF_ONE = 4096
export const COUNT_AGING = 15 / 16
export const COUNT_MOST = 65535
/** Below 256 points a block is forgotten: one that was dirtied once, after 43 restores in which other blocks were dirty. */
export const COUNT_FORGOTTEN = 256
/** Bytes that a restore puts into the stage at most, since the boot waits for it: 0.6 s of a disk that writes 100 MiB/s. */
export const KEEP_AT_RESTORE_BYTES = 64 * 1024 ** 2
