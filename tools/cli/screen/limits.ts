/** Limits of the screen that a machine shows while it starts. */

/** A serial line of 115200 bits/s takes 0.1 s for a picture. */
export const SCREEN_EVERY_MS = 500
/** The last picture may take so long; the system does not wait longer for it. */
export const SCREEN_DRAIN_MS = 300
/** Pause before another attempt, where the policy is `retry`. */
export const RETRY_SECONDS = 30
