/** Limits of a roll's look at the members. */

/** How often the list of members is read anew during a roll. */
export const ROLL_MEMBERS_MS = 10_000
