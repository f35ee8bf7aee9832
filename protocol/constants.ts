/** What two machines must agree on: sizes of the formats, limits of messages, names of protocols. Units are in the names. */

/** Default unit of content addressing. */
export const DEFAULT_BLOCK_SIZE_BYTES = 64 * 1024
export const MIN_BLOCK_SIZE_BYTES = 4 * 1024
export const MAX_BLOCK_SIZE_BYTES = 1024 * 1024
/** Unit of the write log. */
export const GRANULE_SIZE_BYTES = 4 * 1024
/** Largest image: 64 TiB keeps every count below 2^53 and a 4 KiB-block tree below 2^34 leaves. */
export const MAX_IMAGE_SIZE_BYTES = 64 * 1024 ** 4
/** SHA-256. */
export const DIGEST_SIZE_BYTES = 32
/** Version of the exchange protocol that this code speaks; see docs/PROTOCOL.md. */
export const EXCHANGE_PROTOCOL = '/lab-mesh/exchange/2'
export const METADATA_PROTOCOL = '/lab-mesh/metadata/1'
export const JOIN_PROTOCOL = '/lab-mesh/join/1'
export const OPERATE_PROTOCOL = '/lab-mesh/operate/1'
/** A frame's protobuf header; the largest is a have map of many runs. */
export const MAX_FRAME_HEADER_BYTES = 256 * 1024
/** The level under which the list of an image's repeats is asked for, as its only page; no tree is so high. */
export const REPEATS_LEVEL = 64
/** A frame's raw payload: one block, one hash page, one metadata file. */
export const MAX_FRAME_PAYLOAD_BYTES = MAX_BLOCK_SIZE_BYTES
/** A coded set of the granules of one block. */
export const MAX_GRANULE_SET_BYTES = MAX_BLOCK_SIZE_BYTES / GRANULE_SIZE_BYTES / 8
/** Of a granule's SHA-256, to tell that it is not the one that somebody else has: the block is proven anyway. */
export const GRANULE_CHECK_BYTES = 4
export const MAX_GRANULE_CHECKS_BYTES = (MAX_BLOCK_SIZE_BYTES / GRANULE_SIZE_BYTES) * GRANULE_CHECK_BYTES
/** Runs in one have message; longer maps are sent in several messages. */
export const MAX_RUNS_PER_HAVE = 16 * 1024
/** Digests in one find message. */
export const MAX_FINDS_PER_MESSAGE = 2048
/** Find messages that one client may have open. */
export const MAX_FINDS_OPEN = 4
/** Requests in one want message, ids in one missing, cancel or busy. */
export const MAX_WANTS_PER_MESSAGE = 4096
/** Images one peer may say it holds. */
export const MAX_HELD_IMAGES = 64
/** One text in a message: a name, an address, a reason. */
export const MAX_TEXT_BYTES = 1024
/** Listen addresses one peer may tell of another. */
export const MAX_ADDRESSES_PER_PEER = 16
/** Members of one site list. */
export const MAX_MEMBERS = 4096
/** Network cards of one machine that the member list knows. */
export const MAX_MAC_ADDRESSES = 8
/** One metadata file (TUF role, manifest, member list). */
export const MAX_METADATA_FILE_BYTES = 1024 * 1024
/** A rule of the uplink has so many parts at most, each of so many bits per second at least. */
export const MAX_UPLINK_RULES = 16
export const MIN_UPLINK_BITS = 64_000
/** Time until a new session has said hello. */
export const HELLO_DEADLINE_MS = 5_000
/** Whole request and reply on the join and metadata protocols. */
export const REQUEST_DEADLINE_MS = 10_000
/** One request or answer of the operate protocol, and requests that one client may have open on its stream. */
export const MAX_OPERATE_BYTES = 256 * 1024
export const MAX_OPERATE_REQUESTS_OPEN = 16
/** The document of a group's roll, and one signed receipt, as text. */
export const MAX_ROLL_BYTES = 64 * 1024
export const MAX_RECEIPT_BYTES = 32 * 1024
/** Peers that a signed receipt names. */
export const MAX_RECEIPT_PEERS = 64
/** How long somebody who uses a machine may be warned before it is reset. */
export const MAX_WARNING_SECONDS = 3600
/** Receipts in one answer. */
export const MAX_RECEIPTS_PER_PAGE = 64
/** Default port of a mesh node. */
export const DEFAULT_PORT = 7433
/** Machines of one roll: its document must fit a message of 64 KiB. */
export const MAX_ROLL_MACHINES = 128
