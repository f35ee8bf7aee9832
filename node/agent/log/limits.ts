/** Limits of looking at a log that another process writes, and of showing it. */

/** A log that is being written may look damaged for a moment. It is read so often, and so long is waited between. */
export const LOG_PEEK_TRIES = 5
export const LOG_PEEK_PAUSE_MS = 20
/** Parts of the disk whose dirty granules are counted for a map. */
export const MAP_CELLS = 64
