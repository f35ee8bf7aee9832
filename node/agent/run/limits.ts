/** Limits of a command that keeps running. */

/** The master looks once an hour whether its metadata is to be renewed. */
export const RENEW_TICK_MS = 60 * 60 * 1000
/** How often a command that has another one publish for it asks how far that is. */
export const WORK_TICK_MS = 500
/** Ranges that one publication leaves out, and warnings that it gives. People name them one by one. */
export const MAX_PRESERVE_OPTIONS = 4096
/** Invitations of one answer: they are forgotten a week after they have expired. */
export const MAX_INVITATIONS = 65_536
/** Pause between two looks whether a machine of the site has told a master that was put back what was signed since. */
export const TERM_TICK_MS = 250
