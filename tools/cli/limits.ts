/** Limits of what a user may say. */

/** Limits on serving that a user may give: slower links make clients think that the server is stalled. */
export const MIN_UPLOAD_BITS = 1_000_000
/** A machine's configuration file. */
export const MAX_CONFIG_BYTES = 64 * 1024
