/** Limits of a roll. */

/** The operator of a roll looks at the machines once a second. */
export const ROLL_TICK_MS = 1_000
/** The operator writes the roll's document anew every 5 s. After 20 s without that, others take the operator for dead. */
export const ROLL_BEAT_MS = 5_000
export const ROLL_SILENT_MS = 20_000
/** A machine that was told to reset, and runs on as before, is told again after 15 s. */
export const ROLL_ASK_AGAIN_MS = 15_000
/** UDP port of the packets that power machines on. Nobody listens there: the network card looks at every packet. */
export const WAKE_PORT = 9
/** Windows of one roll: one for each half of each day of the week, and to spare. */
export const MAX_ROLL_WINDOWS = 16
