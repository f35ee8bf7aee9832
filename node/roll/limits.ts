/** Limits of a roll. */

/** How often the operator of a roll looks at the machines, and how long it waits for the answer of one. */
export const ROLL_TICK_MS = 1_000
/** So often a roll's document is written anew, which tells others that its operator is alive; silent so long, it is not. */
export const ROLL_BEAT_MS = 5_000
export const ROLL_SILENT_MS = 20_000
/** A machine that was told to reset and runs on as before is told again after this time. */
export const ROLL_ASK_AGAIN_MS = 15_000
/** Port that packets for powering on go to: nobody listens there, network cards look at all. */
export const WAKE_PORT = 9
