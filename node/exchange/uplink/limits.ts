/** Limits of what crosses the uplink of a site. */

/** When all machines of the site are connected: how long after the last was met something is asked for over the uplink. */
export const FAR_QUIET_MS = 100
/** When a machine of the site is not connected: how long after the last was met something is asked for over the uplink. */
export const FAR_PATIENCE_MS = 2_000
/** How long a fetch waits at most before it asks for something over the uplink, even if machines go on coming. */
export const FAR_PATIENCE_MAX_MS = 15_000
/** What a far peer's link is taken to carry until that is measured, bytes per second: blocks are compressed from the first on. */
export const FAR_ASSUMED_LINK_RATE = 1.25e6
/** How long machines of a site that hear of a release at about the same time count on each other to fetch it as well. */
export const EXPECTED_MS = 2_000
/** Bytes that all machines of a site together have on their way over the uplink. */
export const FAR_WINDOW_BYTES = 2 * 1024 * 1024
/** Items that one machine may have on their way over the uplink, however many machines share it. */
export const FAR_WINDOW_MIN_ITEMS = 2
/** What a rate of the uplink grants in this time may be saved up. */
export const UPLINK_BURST_MS = 300
/** Claims that a machine makes within this time are told to the site together. */
export const CLAIM_DELAY_MS = 20
/** What came over the uplink longer ago than this is known to others as held, and no longer claimed. */
export const CLAIM_KEEP_MS = 15_000
/** How often a machine says that it goes on fetching over the uplink. */
export const FETCHING_BEAT_MS = 2_000
/** A machine that has not said for this long that it goes on is taken to fetch nothing over the uplink. */
export const FETCHING_SILENT_MS = 6_000
