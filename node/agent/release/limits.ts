/** Limits of publishing: of looking for blocks, and of what is doubted. */

/** Blocks that are looked for before the rest of the process has its turn. */
export const LOOKED_UP_AT_ONCE = 256
/** Of fewer blocks than 32 (2 MiB) any change touches more than half, so their share is no reason to doubt a release. */
export const FEW_BLOCKS = 32
