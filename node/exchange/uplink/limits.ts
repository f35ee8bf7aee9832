/** Limits of what crosses the uplink of a site. */

/**
 * Before anything is asked for over the uplink: how long after the last machine of the site was met, when all are there; how
 * long when some are not; and how long at most.
 */
export const FAR_QUIET_MS = 100
export const FAR_PATIENCE_MS = 2_000
export const FAR_PATIENCE_MAX_MS = 15_000
/** What a far peer's link is taken to carry until that is measured, bytes per second: blocks are compressed from the first on. */
export const FAR_ASSUMED_LINK_RATE = 1.25e6
/** How long those of a site who hear of a release at about the same time count on each other to fetch it, too. */
export const EXPECTED_MS = 2_000
/** What all machines of a site together have on its way over the uplink; and one of them at least, in blocks. */
export const FAR_WINDOW_BYTES = 2 * 1024 * 1024
export const FAR_WINDOW_MIN_ITEMS = 2
/** What a rate of the uplink grants in this time may be saved up. */
export const UPLINK_BURST_MS = 300
/** What is asked for over the uplink is told to the site in so short a time, together. */
export const CLAIM_DELAY_MS = 20
/** What has come over the uplink so long ago is known to others as held, and no longer claimed. */
export const CLAIM_KEEP_MS = 15_000
/** How often a machine says that it goes on fetching over the uplink, and when the others no longer believe it. */
export const FETCHING_BEAT_MS = 2_000
export const FETCHING_SILENT_MS = 6_000
