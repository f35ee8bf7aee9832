/** Limits of resetting a machine for an operator. */

/** A reset that was granted runs 500 ms later: the answer must leave before the network goes. */
export const RESET_DELAY_MS = 500
/** Time for the command that warns the user, and for the command that resets. */
export const RESET_COMMAND_DEADLINE_MS = 60_000
