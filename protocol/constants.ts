/**
 * The folder protocol/ is everything that two machines must agree on: formats and rules, without clock, disk or network.
 * - Content: blocks of an image and their hash tree (`hash-tree`), granules of a block (`granules`), what repeats (`repeats`).
 * - Sets: `bitmap` for what is looked up, `ranges` for what is told.
 * - Messages: `messages` (of `message-parts`) and `operate-messages` say what there is; `wire-writer`, `wire-reader` and `frames` make bytes of it.
 * - Documents: `manifest`, `roll-document`, `receipt-document`, each signed as `signed-document` says; `join-token`.
 * - Faults: `errors` has every code with its advice and its exit code.
 *
 * This file has the sizes of the formats, the limits of messages and the names of protocols. Units are in the names.
 */

/** Bytes of a block, the unit that has a digest: 64 KiB unless the publisher says otherwise; a power of two. */
export const DEFAULT_BLOCK_SIZE_BYTES = 64 * 1024
export const MIN_BLOCK_SIZE_BYTES = 4 * 1024
export const MAX_BLOCK_SIZE_BYTES = 1024 * 1024
/** Bytes of a granule, the unit that travels. Our own write log counts in units of the same size. */
export const GRANULE_SIZE_BYTES = 4 * 1024
/** Largest image: 64 TiB keeps every count below 2^53 and a 4 KiB-block tree below 2^34 leaves. */
export const MAX_IMAGE_SIZE_BYTES = 64 * 1024 ** 4
/** Bytes of a SHA-256. */
export const DIGEST_SIZE_BYTES = 32
/** Names of the protocols that this code speaks, each with its version (docs/PROTOCOL.md). */
export const EXCHANGE_PROTOCOL = '/lab-mesh/exchange/2'
export const METADATA_PROTOCOL = '/lab-mesh/metadata/1'
export const JOIN_PROTOCOL = '/lab-mesh/join/1'
export const OPERATE_PROTOCOL = '/lab-mesh/operate/1'
/** Bytes of a frame's protobuf header. The largest one is a have message with MAX_RUNS_PER_HAVE runs. */
export const MAX_FRAME_HEADER_BYTES = 256 * 1024
/**
 * The list of an image's repeats is asked for as the only page of this level. No tree is so high: 64 TiB in blocks of 4
 * KiB make 5 levels.
 */
export const REPEATS_LEVEL = 64
/** Bytes of a frame's raw payload: one block, one hash page, or one metadata file. */
export const MAX_FRAME_PAYLOAD_BYTES = MAX_BLOCK_SIZE_BYTES
/** Bytes of a set of granules of one block: one bit for each granule, 256 granules in a block of 1 MiB. */
export const MAX_GRANULE_SET_BYTES = MAX_BLOCK_SIZE_BYTES / GRANULE_SIZE_BYTES / 8
/**
 * Bytes of a granule's SHA-256 that a client sends to say which content it has. Four bytes may agree by chance, once in 4
 * billion granules; the block is hashed as a whole afterwards, so a wrong granule is noticed.
 */
export const GRANULE_CHECK_BYTES = 4
export const MAX_GRANULE_CHECKS_BYTES = (MAX_BLOCK_SIZE_BYTES / GRANULE_SIZE_BYTES) * GRANULE_CHECK_BYTES
/** Runs in one have message. A longer list of blocks is sent in several messages. */
export const MAX_RUNS_PER_HAVE = 16 * 1024
/** Digests in one find message. */
export const MAX_FINDS_PER_MESSAGE = 2048
/** Find messages that one client may have open. */
export const MAX_FINDS_OPEN = 4
/** Requests in one want message, and ids in one missing, cancel or busy message. */
export const MAX_WANTS_PER_MESSAGE = 4096
/** Images one peer may say it holds. */
export const MAX_HELD_IMAGES = 64
/** Bytes of one text in a message: a name, an address, or a reason. */
export const MAX_TEXT_BYTES = 1024
/** Listen addresses one peer may tell of another. */
export const MAX_ADDRESSES_PER_PEER = 16
/** Bytes of the text with which a machine signs its addresses: 16 of 250 bytes each. */
export const MAX_ADDRESS_RECORD_BYTES = 4 * 1024
/** Addresses that a machine has signed count for so long: a machine that was off for the holidays signs anew when it starts. */
export const ADDRESS_RECORD_MS = 30 * 24 * 3600 * 1000
/** How far this clock may be behind the time of a token, a release, a receipt or of signed addresses before a machine refuses to go by it. */
export const CLOCK_TOLERANCE_MS = 24 * 3600 * 1000
/** Machines with one key that a hello tells of. */
export const MAX_TWINS = 8
/** Members of one site list. */
export const MAX_MEMBERS = 4096
/** Machines that a site list says were removed: the last ones. */
export const MAX_REMOVED = 128
/** Network cards of one machine that the member list knows. */
export const MAX_MAC_ADDRESSES = 8
/** Disks that a machine which asks to be enrolled tells of, and bytes of each text that it tells about itself. */
export const MAX_TOLD_DISKS = 16
export const MAX_FACT_BYTES = 128
/** Bytes of one metadata file: a TUF role, a manifest, or the member list. */
export const MAX_METADATA_FILE_BYTES = 1024 * 1024
/** Parts of a rule of the uplink, at most, and bits per second that a part grants, at least. */
export const MAX_UPLINK_RULES = 16
export const MIN_UPLINK_BITS = 64_000
/** Time from opening a session to its hello message. */
export const HELLO_DEADLINE_MS = 5_000
/** Time for a whole request with its reply on the join and metadata protocols. */
export const REQUEST_DEADLINE_MS = 10_000
/** Bytes of one request or answer of the operate protocol, and requests that one client may have open on its stream. */
export const MAX_OPERATE_BYTES = 256 * 1024
export const MAX_OPERATE_REQUESTS_OPEN = 16
/** Bytes of the document of a group's roll, and of one signed receipt, as text. */
export const MAX_ROLL_BYTES = 64 * 1024
export const MAX_RECEIPT_BYTES = 32 * 1024
/** Peers that a signed receipt names. */
export const MAX_RECEIPT_PEERS = 64
/** Seconds from the warning of a user to the reset of the machine, at most. */
export const MAX_WARNING_SECONDS = 3600
/** Receipts in one answer of the operate protocol. */
export const MAX_RECEIPTS_PER_PAGE = 64
/** TCP port of a mesh node, unless the user says otherwise. */
export const DEFAULT_PORT = 7433
/** Machines of one roll: its document must fit a message of 64 KiB. */
export const MAX_ROLL_MACHINES = 128
/** Partitions for images in the layout of a disk. */
export const MAX_LAYOUT_PARTITIONS = 16
