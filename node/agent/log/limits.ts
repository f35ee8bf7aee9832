/** Limits of looking at a log that another process writes, and of showing it. */

/** A log that is being written may look damaged for a moment, so it is read up to 5 times with pauses of 20 ms. */
export const LOG_PEEK_TRIES = 5
export const LOG_PEEK_PAUSE_MS = 20
/** Parts of the disk whose dirty units are counted for a map. */
export const MAP_CELLS = 64
