/** Limits that both sides of an exchange session know. */

/** Bytes of requested, unanswered blocks one server grants one client. */
export const SESSION_CREDIT_BYTES = 8 * 1024 * 1024
/** When a busy server wants to be asked again. */
export const BUSY_RETRY_MIN_MS = 50
export const BUSY_RETRY_MAX_MS = 1_000
/**
 * How long a machine that has everything stays at most for those who need from it what came over the uplink last, and how often
 * it looks whether they still do.
 */
export const HAND_OVER_MS = 3_000
export const HAND_OVER_TICK_MS = 50
/** First and longest pause before a broken session, or a peer that could not be dialled, is tried again. */
export const RETRY_MIN_MS = 500
export const RETRY_MAX_MS = 15_000
