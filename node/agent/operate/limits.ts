/** Limits of commands that ask other machines. */

/** How long a command waits for receipts that it had gathered anew. */
export const GATHER_WAIT_MS = 12_000
/** Receipts in one answer of the control socket. */
export const RECEIPTS_PER_CONTROL_PAGE = 200
/** How long a command that started a node of its own waits for members that it wants to ask. */
export const OPERATOR_CONNECT_MS = 5_000
/** Members that one command asks through the running one at a time: their answers fit into one control reply. */
export const OPERATOR_BATCH = 32
