/** Limits of resetting a machine for an operator. */

/** A reset that was granted runs no sooner, so that the answer is on its way before the network goes. */
export const RESET_DELAY_MS = 500
/** Time for the commands that warn and that reset. */
export const RESET_COMMAND_DEADLINE_MS = 60_000
