/** Limits of how commands share the state directory of a machine. */

/** Time that a command waits for the state directory while a command that only reads has it, or one that is about to end. */
export const HOLD_WAIT_MS = 2_000
/** Pause between two looks whether the state directory is free. */
export const HOLD_TICK_MS = 50
/** Bytes of one value of the state database; the largest are receipts and roll documents, far below that. */
export const MAX_VALUE_BYTES = 2 * 1024 * 1024
/** Bytes of values at which one answer of the control socket is full; with the last value, quoted, it stays below MAX_CONTROL_BYTES. */
export const VALUES_PAGE_BYTES = 512 * 1024
/** Bytes of a path: Linux takes no longer ones. */
export const MAX_PATH_BYTES = 4096
