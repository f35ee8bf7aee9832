/** Limits of hooks. */

/** Time for one hook after a restore, unless the user says otherwise. */
export const HOOK_TIMEOUT_MS = 60_000
/** A hook whose time is over is asked to end, and killed 5 s later. */
export const HOOK_GRACE_MS = 5_000
/** Bytes of a hook's output that are kept for the log; the rest is read and dropped. */
export const HOOK_OUTPUT_BYTES = 64 * 1024
/** Hooks in one directory; a directory with more of them is the wrong one. */
export const MAX_HOOKS = 100
/** Bytes of the first line of a script that Linux reads (BINPRM_BUF_SIZE). */
export const SHEBANG_BYTES = 256
