/** Limits of staging a coming release. */

/** Blocks of a coming release that a machine keeps beside its disk, in bytes, unless the user says otherwise. */
export const STAGE_SPACE_BYTES = 4 * 1024 ** 3
/** Staged blocks are made durable when so many bytes have come, or this time is over. */
export const STAGE_FLUSH_BYTES = 8 * 1024 * 1024
export const STAGE_FLUSH_MS = 1_000
/** With a limit on its rate so much is asked for at a time: what that grants in this time, and at least so many blocks. */
export const STAGE_PORTION_MS = 1_000
export const STAGE_PORTION_BLOCKS = 4
/** While somebody uses the machine: this share of the rate that was given, or this rate in bytes per second. */
export const STAGE_IN_USE_SHARE = 0.25
export const STAGE_IN_USE_RATE = 2 * 1024 * 1024
/** When staging that found nobody, or what the machine's own session changed meanwhile, is looked at again. */
export const STAGE_RETRY_MS = 10_000
/** How often a connected member is asked whether there is newer metadata, though it would have said so. */
export const NEWS_POLL_MS = 10 * 60_000
