/** Limits of keeping and gathering receipts. */

/** Receipts of one machine that are kept, by itself and by whoever gathers them: more than a year of nights. */
export const RECEIPTS_PER_MACHINE = 400
/** Machines that are no members any more whose receipts are kept: those that told of one last. */
export const GONE_MACHINES = 64
/** Pause between two rounds of gathering, and pages of one machine that one round takes. */
export const GATHER_TICK_MS = 5 * 60_000
export const GATHER_PAGES = 16
/** A machine that has come is asked for its receipts after 1 s. */
export const GATHER_ARRIVED_MS = 1_000
/** Bytes of the receipts in one answer, all together. */
export const RECEIPT_PAGE_BYTES = 96 * 1024
/** How long a restore waits for what others know of this machine's receipts; without an answer it goes on. */
export const SEEN_DEADLINE_MS = 2_000
