/** Limits of write logs, and of the programs of the system that keep them. */

/** One read of a write log that is opened. */
export const LOG_READ_BYTES = 1024 * 1024
/**
 * Unit in which dm-era remembers writes. Its first write in each era waits for two flushes of the metadata, and requests are
 * cut at its bounds, so smaller is slower; and 4 bytes of metadata a unit would be 1/1024 of the disk with 4 KiB.
 */
export const ERA_BLOCK_BYTES = 64 * 1024
/** Metadata per unit: its era (4 bytes) three times while a snapshot is held, and 64 eras not yet digested, of a bit each. */
export const ERA_METADATA_BYTES_PER_BLOCK = 24
export const ERA_METADATA_BASE_BYTES = 4 * 1024 * 1024
/** More eras than this cannot begin between two runs of `mesh monitor`: one for each activation and each look at the log. */
export const MAX_ERAS_BETWEEN_MONITORS = 65_536
/** How long a look at dm-era waits for another one. */
export const ERA_LOCK_TRIES = 200
export const ERA_LOCK_PAUSE_MS = 50
/** Time for one program of the system, and what it may print: the list of blocks of dm-era. */
export const TOOL_DEADLINE_MS = 120_000
export const TOOL_OUTPUT_BYTES = 256 * 1024 * 1024
/** Unit in which a qcow2 file over the disk keeps its own records: 16 MiB of them for 1 TiB. */
export const QEMU_CLUSTER_BYTES = 512 * 1024
/** Time for one run of qemu-img, what it may print, and how often a qemu-nbd that starts is looked for. */
export const QEMU_TOOL_DEADLINE_MS = 120_000
export const QEMU_OUTPUT_BYTES = 4 * 1024 * 1024
export const QEMU_POLL_MS = 5
/** Zeros that are written at a time. */
export const LOG_ZERO_BYTES = 1024 * 1024
