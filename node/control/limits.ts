/** Limits of the control socket. */

/** Bytes of one request or reply, and the time for both. A message is kept in memory while it comes in. */
export const MAX_CONTROL_BYTES = 4 * 1024 * 1024
/** Connections at a time. One more takes the place of the caller that has been waited for the longest. */
export const MAX_CONTROL_CONNECTIONS = 64
/** Bytes of all requests that have come in in part, and of all answers that were not taken: four of the longest. */
export const MAX_CONTROL_WAITING_BYTES = 16 * 1024 * 1024
export const CONTROL_DEADLINE_MS = 15_000
/** An answer that takes long is announced so often, within CONTROL_DEADLINE_MS: a rollback looks for each block of an image. */
export const CONTROL_BEAT_MS = 4_000
/** Time that a caller has to take the answer that nobody can answer it now. */
export const TURN_AWAY_MS = 1_000
