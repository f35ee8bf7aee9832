/** Limits of reading, hashing and comparing a disk. */

/** Bytes of one read of a scan: a disk reads 4 MiB at full speed, and the threads still share the work evenly. */
export const SCAN_RUN_BYTES = 4 * 1024 * 1024
/** Threads that hash, at most, however many cores there are. */
export const MAX_HASH_WORKERS = 4
/** To start a thread costs as much processor time as hashing 128 MiB. A command that hashes less starts none. */
export const HASH_WORKER_WORTH_BYTES = 128 * 1024 * 1024
/**
 * One granule in 2 to the power of MIN_ANCHOR_BITS, which is 4, is an anchor. Images with more than 4 × MAX_ANCHORS
 * granules (16 GiB) use more bits, so that they have no more anchors than that.
 */
export const MIN_ANCHOR_BITS = 2
export const MAX_ANCHORS = 1024 * 1024
/** Pairs of granules with equal fingerprints that are remembered, and how many may differ before the search ends. */
export const MAX_REPEAT_CANDIDATES = 128 * 1024
export const MAX_REPEAT_MISSES = 1024
/** The main thread makes transfers of up to 1 MiB itself, as long as the page cache answers. */
export const QUICK_TRANSFER_BYTES = 1024 * 1024
/**
 * A transfer that took longer than 0.1 ms, and 1 ms more for each MiB that was copied, had to wait for the disk: an SSD needs
 * 0.1 ms to answer.
 */
export const QUICK_SLOW_MS = 0.1
export const QUICK_SLOW_MS_PER_MIB = 1
/** After a wait of 1 ms the main thread tries no transfer for 20 ms, so that it waits for at most 5 % of the time. */
export const QUICK_PAUSE_FACTOR = 20
/** Sizes of sectors that a GPT may have been made for. */
export const GPT_SECTOR_BYTES = [512, 4096, 1024, 2048] as const
/** Partitions of a GPT, and bytes of one entry, beyond which a table is taken for damaged: Linux numbers no more than 256 of a disk. */
export const MAX_PARTITIONS = 1024
export const MAX_PARTITION_ENTRY_BYTES = 4096
/** blkid reads a few KiB. */
export const BLKID_DEADLINE_MS = 10_000
/** Devices stacked on each other (LVM on LUKS on RAID …) that are followed down to the hardware. */
export const MAX_STACKED_DEVICES = 8
/** How long a drive may take to tell its counters; without them a boot goes on. */
export const DRIVE_COUNTER_DEADLINE_MS = 3_000
/**
 * A program that has a disk open for writing is looked for again every 0.2 s, and is in the way if it is still there after 2 s: udev,
 * smartd and LVM have a disk open for less than a second.
 */
export const OPENED_PATIENCE_MS = 2_000
export const OPENED_POLL_MS = 200
/** A disk is called blank if so many bytes at both of its ends, and of so many places between, are zeros: what tables and file systems need. */
export const BLANK_EDGE_BYTES = 1024 * 1024
export const BLANK_SAMPLES = 64
export const BLANK_SAMPLE_BYTES = 64 * 1024
