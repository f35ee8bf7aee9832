/** Limits of what a user may say. */

/** Bits per second that serving may be limited to, at least: clients take a slower server for one that has stalled. */
export const MIN_UPLOAD_BITS = 1_000_000
/** Bits per second of any other rate, at least: a lower one takes more than a day for 1 GiB, and is a typing error. */
export const MIN_RATE_BITS = 100_000
/** Bytes of a configuration file; a longer file is something else. */
export const MAX_CONFIG_BYTES = 64 * 1024
/** Bytes of a file with root metadata, and of a list of machines: 4096 lines of 250 bytes. */
export const MAX_SITE_FILE_BYTES = 1024 * 1024
export const MAX_MACHINE_LIST_BYTES = 1024 * 1024
/** Pause between two looks of `mesh lab --watch`. */
export const LAB_EVERY_MS = 2_000
/** Troubles that `mesh lab --check` names, and machines that `--wide` names as those that sent blocks. */
export const LAB_NAMED = 3
