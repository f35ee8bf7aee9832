/** Limits of the screen that a machine shows while it starts. */

/** A serial line of 115200 bits/s takes 0.1 s for a picture. */
export const SCREEN_EVERY_MS = 500
/** The last picture may take so long; the system does not wait longer for it. */
export const SCREEN_DRAIN_MS = 300
/** Time for the agent’s script to look for the state partition, which gives up after 30 s by itself. */
export const STATE_WAIT_MS = 90_000
/** How long the screen says that the system starts on a disk that was not restored. */
export const UNVERIFIED_MS = 10_000
/** Pause before another attempt, where the policy is `retry`. */
export const RETRY_SECONDS = 30
/** The password of the local menu. A short one could be found from its hash, which whoever has the agent’s files can read. */
export const MENU_PASSWORD_LENGTH = 8
export const MENU_PASSWORD_MAX = 128
/** What a trial of the password costs: 32 MiB of memory and about 0.2 s; machines have 512 MiB. */
export const SCRYPT_OF_MENU = { N: 2 ** 15, r: 8, p: 3 }
export const SCRYPT_MAX_MEMORY = 64 * 1024 ** 2
/** After a wrong password nothing can be typed for 3 s; each further one doubles that, up to 60 s. */
export const WRONG_PASSWORD_MS = 3_000
export const WRONG_PASSWORD_MOST_MS = 60_000
/** Who types nothing for 60 s has gone: the prompt, or the menu, is closed. */
export const MENU_IDLE_MS = 60_000
/** How long a start waits for others that hold a new agent; it can be fetched at the next one as well. */
export const KEEP_WAIT_MS = 20_000
