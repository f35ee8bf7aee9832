/** Limits of looking for the blocks of an earlier release. */

/** Blocks that are looked for before the rest of the process has its turn. */
export const LOOKED_UP_AT_ONCE = 256
