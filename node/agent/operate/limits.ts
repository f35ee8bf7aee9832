/** Limits of commands that ask other machines. */

/** Time that a command waits for receipts that are being gathered anew. */
export const GATHER_WAIT_MS = 12_000
/** Time from the start of a node for which it waits for the members that it is to ask, because dialling all of a room takes a moment. */
export const OPERATOR_CONNECT_MS = 5_000
/** Members that one command asks at a time through the running command: their answers must fit into one control reply. */
export const OPERATOR_BATCH = 32
