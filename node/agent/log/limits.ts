/** Limits of looking at a log that another process writes. */

/** A log that is being written may look damaged for a moment. */
export const LOG_PEEK_TRIES = 5
export const LOG_PEEK_PAUSE_MS = 20
