/** Limits of the control socket. */

/** Bytes of one request or reply, and the time for both. A message is kept in memory while it comes in. */
export const MAX_CONTROL_BYTES = 4 * 1024 * 1024
export const CONTROL_DEADLINE_MS = 15_000
/** An answer that takes long is announced so often, within CONTROL_DEADLINE_MS: a rollback looks for each block of an image. */
export const CONTROL_BEAT_MS = 4_000
