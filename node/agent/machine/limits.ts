/** Limits of what a machine believes of its own clock. */

/** How far the clock may be behind the time of a token or of a release before a command refuses to go by it. */
export const CLOCK_TOLERANCE_MS = 24 * 3600 * 1000
