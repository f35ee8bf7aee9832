/** Limits of keeping an eye on all machines of a site. */

/** Pause between two rounds in which the machines that are on are asked how they are. */
export const LOOK_TICK_MS = 30_000
/** A machine that has come is asked after 2 s: by then it has opened its disk. */
export const LOOK_ARRIVED_MS = 2_000
/** What a machine says again and again is kept anew after so long: when it was seen last is known to this. */
export const SIGHTING_KEEP_MS = 5 * 60_000
/** Metadata of which less is left than this is named: a master that is on renews them weeks before. */
export const METADATA_SOON_MS = 7 * 24 * 3_600_000
