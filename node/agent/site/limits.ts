/** Limits of what is said and done about the keys of a site. */

/** Metadata of which less than this part of their life is left are named as about to expire: a quarter, 7 days for timestamps. */
export const SOON_PART = 1 / 4
/** Files in the backup of a master: each release is one, and the chain of roots. */
export const MAX_BACKUP_FILES = 262_144
/** Keys that were ever removed from a site. */
export const MAX_REMOVALS = 262_144
/** Images that an answer about the site names. */
export const MAX_IMAGES_TOLD = 4096
