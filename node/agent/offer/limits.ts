/** Limits of offering the own disk, while the machine is used too. */

/** While somebody uses the machine, serving takes at most half of one core, and half of the rate that the user gave. */
export const IN_USE_CPU_SHARE = 0.5
export const IN_USE_RATE_SHARE = 0.5
/** Pause between two looks whether somebody uses the machine, and the time for one look. */
export const IN_USE_TICK_MS = 30_000
export const IN_USE_DEADLINE_MS = 5_000
/** Priority of serving, as nice(1) counts: everything else on the machine goes first. */
export const SERVING_NICE = 10
/** `mesh restore --linger` serves for at most 60 s, and ends sooner when nobody has wanted anything for 5 s. */
export const LINGER_MS = 60_000
export const LINGER_QUIET_MS = 5_000
export const LINGER_TICK_MS = 100
/** The master looks every 5 s whether its disk has changed. */
export const DISK_WATCH_TICK_MS = 5_000
/** Block devices have no time of last change that can be relied on, so they are read again this often. */
export const DEVICE_SCAN_EVERY_MS = 30 * 60 * 1000
/**
 * A serving machine looks at its own bitmap every 500 ms, and asks a change tracker every 5 minutes: a tracker takes time to
 * answer, and with dm-era the next write to each unit is slow again. Blocks are hashed before they are sent in any case.
 */
export const LOG_WATCH_TICK_MS = 500
export const TRACKER_WATCH_TICK_MS = 5 * 60_000
