/** Limits of the control socket. */

/** One control request or reply, and the time for it. */
export const MAX_CONTROL_BYTES = 4 * 1024 * 1024
export const CONTROL_DEADLINE_MS = 15_000
