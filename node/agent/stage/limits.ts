/** Limits of staging a coming release. */

/** Staged blocks are made durable after 8 MiB, or after 1 s. */
export const STAGE_FLUSH_BYTES = 8 * 1024 * 1024
export const STAGE_FLUSH_MS = 1_000
/** With a limit on its rate staging asks for what the rate grants in 1 s, and for at least 4 blocks. */
export const STAGE_PORTION_MS = 1_000
export const STAGE_PORTION_BLOCKS = 4
/** While somebody uses the machine: a quarter of the rate that the user gave, or 2 MiB per second if the user gave none. */
export const STAGE_IN_USE_SHARE = 0.25
export const STAGE_IN_USE_RATE = 2 * 1024 * 1024
/** Staging looks again after 10 s when it found nobody to ask, or when the machine's own session changed blocks meanwhile. */
export const STAGE_RETRY_MS = 10_000
/** A connected member is asked every 10 minutes for newer metadata. Members tell news anyway; the question is for lost news. */
export const NEWS_POLL_MS = 10 * 60_000
