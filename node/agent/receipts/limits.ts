/** Limits of keeping and gathering receipts. */

/** Receipts of one machine that are kept, there and where they are gathered: more than a year of nights. */
export const RECEIPTS_PER_MACHINE = 400
/** How often receipts are gathered, and how many pages of one machine at a time. */
export const GATHER_TICK_MS = 5 * 60_000
export const GATHER_PAGES = 16
/** How soon after a machine has come it is asked for its receipts. */
export const GATHER_ARRIVED_MS = 1_000
/** Text of the receipts in one answer, all together. */
export const RECEIPT_PAGE_BYTES = 96 * 1024
