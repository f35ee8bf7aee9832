/** Limits of hooks. */

/** Time for one hook after a restore, and what it may print; the rest is not kept. */
export const HOOK_TIMEOUT_MS = 60_000
/** A hook that is to end is killed after so long. */
export const HOOK_GRACE_MS = 5_000
export const HOOK_OUTPUT_BYTES = 64 * 1024
/** Hooks in one directory. */
export const MAX_HOOKS = 100
