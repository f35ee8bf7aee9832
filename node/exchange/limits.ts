/** Limits that both sides of an exchange session know. */

/** Bytes of requested, unanswered blocks that one server grants one client. */
export const SESSION_CREDIT_BYTES = 8 * 1024 * 1024
/** A busy server wants to be asked again after at least so many milliseconds. */
export const BUSY_RETRY_MIN_MS = 50
/** A busy server wants to be asked again after at most so many milliseconds; a client waits no longer, whatever it is told. */
export const BUSY_RETRY_MAX_MS = 1_000
/** How long a machine that has everything stays at most for machines that need from it what came over the uplink last. */
export const HAND_OVER_MS = 3_000
/** How often a machine that stays for others looks whether they still need it. */
export const HAND_OVER_TICK_MS = 50
/** How long a peer that broke the rules is neither asked nor let in; each further time within LEDGER_MS twice as long. */
export const BAN_MS = 10 * 60 * 1000
/** What a peer did wrong is forgiven after this time, and no ban is longer. */
export const LEDGER_MS = 24 * 3600 * 1000
/** A peer that cost others time less often than this within LEDGER_MS is trusted like any other. */
export const DOUBT_OFFENCES = 3
/** First pause before a broken session, or a peer that could not be dialled, is tried again; each next pause is twice as long. */
export const RETRY_MIN_MS = 500
/** Longest pause before a broken session, or a peer that could not be dialled, is tried again. */
export const RETRY_MAX_MS = 15_000
