/** Limits of publishing: of looking for blocks, and of what is doubted. */

/** Blocks that are looked for before the rest of the process has its turn. */
export const LOOKED_UP_AT_ONCE = 256
/** Of fewer blocks than 32 (2 MiB) any change touches more than half, so their share is no reason to doubt a release. */
export const FEW_BLOCKS = 32
/**
 * How far the clock of the master may be ahead of the last restore that a machine told of: the longest holidays have three months. And
 * ahead of its own last signature, if no machine has told anything: a site may publish once a year.
 */
export const MAX_RECEIPT_SILENCE_MS = 120 * 24 * 3600 * 1000
export const MAX_METADATA_SILENCE_MS = 400 * 24 * 3600 * 1000
