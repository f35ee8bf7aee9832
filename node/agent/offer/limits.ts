/** Limits of offering the own disk, while the machine is used too. */

/** While somebody uses the machine: this share of one core, and of the rate that was given. */
export const IN_USE_CPU_SHARE = 0.5
export const IN_USE_RATE_SHARE = 0.5
/** How often it is looked whether somebody uses the machine, and the time for that. */
export const IN_USE_TICK_MS = 30_000
export const IN_USE_DEADLINE_MS = 5_000
/** Priority of serving, as nice(1) counts: everything else on the machine goes first. */
export const SERVING_NICE = 10
/** How long `mesh restore --linger` serves at most, and how long nobody has wanted anything when it ends before. */
export const LINGER_MS = 60_000
export const LINGER_QUIET_MS = 5_000
export const LINGER_TICK_MS = 100
/** How often the master looks whether its disk has changed. */
export const DISK_WATCH_TICK_MS = 5_000
/** Block devices have no time of last change that can be relied on, so they are read again this often. */
export const DEVICE_SCAN_EVERY_MS = 30 * 60 * 1000
/**
 * How often a serving machine looks at the log of its disk: our own bitmap, and a tracker that has to be asked, which takes
 * time and with dm-era makes first writes slow again. Blocks are hashed before they are sent in any case.
 */
export const LOG_WATCH_TICK_MS = 500
export const TRACKER_WATCH_TICK_MS = 5 * 60_000
