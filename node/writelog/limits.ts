/** Limits of write logs, and of the programs of the system that keep them. */

/** Bytes of one read of a write log that is opened. */
export const LOG_READ_BYTES = 1024 * 1024
/**
 * Bytes of the unit in which dm-era remembers writes. Smaller units are slower: the first write to a unit in each era waits
 * for two flushes of the metadata, and requests are cut where units meet. The kernel keeps 4 bytes for each unit.
 */
export const ERA_BLOCK_BYTES = 64 * 1024
/**
 * Bytes of metadata for each unit: three times 4 bytes for its era, as long as a snapshot is held, and 8 bytes for 64 eras
 * that the kernel has not merged yet, with reserve. The second number is for all that does not grow with the disk.
 */
export const ERA_METADATA_BYTES_PER_BLOCK = 24
export const ERA_METADATA_BASE_BYTES = 4 * 1024 * 1024
/** Eras that may begin between two runs of `mesh monitor`: each activation and each look at the log begins one. */
export const MAX_ERAS_BETWEEN_MONITORS = 65_536
/** A look at dm-era waits for another one 200 times 50 ms, which is 10 s. */
export const ERA_LOCK_TRIES = 200
export const ERA_LOCK_PAUSE_MS = 50
/** Time for one program of the system, and bytes that it may print: the longest output is dm-era's list of written units. */
export const TOOL_DEADLINE_MS = 120_000
export const TOOL_OUTPUT_BYTES = 256 * 1024 * 1024
/** Bytes of the unit in which a qcow2 file over the disk keeps its own records: 16 MiB of records for a disk of 1 TiB. */
export const QEMU_CLUSTER_BYTES = 512 * 1024
/** Time for one run of qemu-img, and bytes that it may print. */
export const QEMU_TOOL_DEADLINE_MS = 120_000
export const QEMU_OUTPUT_BYTES = 4 * 1024 * 1024
/** Pause between two attempts to connect to a qemu-nbd that starts. */
export const QEMU_POLL_MS = 5
/** Bytes of zeros that are written at a time. */
export const LOG_ZERO_BYTES = 1024 * 1024
/** How far the two times of a log's file may be apart, in nanoseconds: FAT keeps them in steps of 2 s. */
export const LOG_TIMES_SLACK_NS = 2_000_000_000n
