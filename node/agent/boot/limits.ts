/** Limits of starting a machine. */

/** Time for a DHCP server to answer; a link takes 2 to 4 s to come up. Then the lease of the last time is used. */
export const LEASE_WAIT_MS = 12_000
/** How often it is looked whether a network card has an address. */
export const LEASE_TICK_MS = 100
/** Time, counted from the first attempt, in which the managed disk may appear: USB disks take up to 10 s. */
export const DISK_WAIT_MS = 30_000
export const DISK_TICK_MS = 500
/** Longest time of a command that mounts, or gives an address: a journal is replayed meanwhile. */
export const BOOT_TOOL_DEADLINE_MS = 5 * 60 * 1000
/** Time for the kernel to show the partitions of a disk that was laid out. */
export const PARTITIONS_WAIT_MS = 20_000
export const PARTITIONS_TICK_MS = 50
/** A disk that does not have its new table after so many starts will not have it after more. */
export const LAYOUT_TRIES = 3
/** A new agent is started so often before it counts as one that fails: a power cut in its first start is forgiven once, and one that hangs needs a person each time. */
export const AGENT_TRIES = 2
