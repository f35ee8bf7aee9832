/** Limits of a command that keeps running. */

/** The master looks once an hour whether its metadata is to be renewed. */
export const RENEW_TICK_MS = 60 * 60 * 1000
