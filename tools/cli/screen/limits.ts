/** Limits of the screen that a machine shows while it starts. */

/** A serial line of 115200 bits/s takes 0.1 s for a picture. */
export const SCREEN_EVERY_MS = 500
/** The last picture may take so long; the system does not wait longer for it. */
export const SCREEN_DRAIN_MS = 300
/** Time for the agent’s script to look for the state partition, which gives up after 30 s by itself. */
export const STATE_WAIT_MS = 90_000
/** How long the screen says that the system starts on a disk that was not restored. */
export const UNVERIFIED_MS = 10_000
/** Pause before another attempt, where the policy is `retry`. */
export const RETRY_SECONDS = 30
