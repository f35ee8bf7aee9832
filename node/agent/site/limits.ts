/** Limits of what is said and done about the keys of a site. */

/** Metadata of which less than this part of their life is left are named as about to expire: a quarter, 7 days for timestamps. */
export const SOON_PART = 1 / 4
