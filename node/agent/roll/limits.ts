/** Limits of a roll's look at the members. */

/** Pause between two readings of the member list during a roll: machines may be enrolled or removed meanwhile. */
export const ROLL_MEMBERS_MS = 10_000
