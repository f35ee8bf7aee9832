/** Every limit, size and deadline of the mesh that is shared between modules, in one place. Units are in the names. */

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
export const EXCHANGE_PROTOCOL = '/lab-mesh/exchange/1'
export const METADATA_PROTOCOL = '/lab-mesh/metadata/1'
export const JOIN_PROTOCOL = '/lab-mesh/join/1'

/** A frame's protobuf header; the largest is a have map of many runs. */
export const MAX_FRAME_HEADER_BYTES = 256 * 1024
/** A frame's raw payload: one block, one hash page, one metadata file. */
export const MAX_FRAME_PAYLOAD_BYTES = MAX_BLOCK_SIZE_BYTES
/** Runs in one have message; longer maps are sent in several messages. */
export const MAX_RUNS_PER_HAVE = 16 * 1024
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
/** One metadata file (TUF role, manifest, member list). */
export const MAX_METADATA_FILE_BYTES = 1024 * 1024

/** Bytes of requested, unanswered blocks one server grants one client. */
export const SESSION_CREDIT_BYTES = 8 * 1024 * 1024
/** Blocks a server reads ahead for one client. */
export const SERVE_READ_AHEAD = 4
/** Bytes a client asks of one peer before it knows the peer's speed, and at least later on. */
export const MIN_PEER_WINDOW_BYTES = 1024 * 1024
/** A peer is asked for as much as it delivers in this time. */
export const PEER_WINDOW_MS = 500
/** How often a fetch looks for stalled peers, missing holders and slow last requests. */
export const FETCH_TICK_MS = 200
/** A request this old may be asked of a second peer when nothing else is left to ask. */
export const ENDGAME_AGE_MS = 400
/** First and longest pause before a broken session, or a peer that could not be dialled, is tried again. */
export const RETRY_MIN_MS = 500
export const RETRY_MAX_MS = 15_000
/** Bytes one restore keeps in flight and undelivered, over all peers. */
export const FETCH_WINDOW_BYTES = 16 * 1024 * 1024
/** Received bytes of one stream that may wait for their consumer before the sender is stopped. */
export const STREAM_BACKLOG_BYTES = 2 * 1024 * 1024
/** Receive window of a yamux stream: the same on every node, and at most libp2p's read buffer of 4 MiB. */
export const STREAM_WINDOW_BYTES = 1024 * 1024
/** Streams of one protocol that one peer may open to us at a time. */
export const MAX_STREAMS_PER_PROTOCOL = 8
/** Streams of all protocols, libp2p's own among them, that one peer may open to us at a time. */
export const MAX_STREAMS_PER_CONNECTION = 64
/** Time to open a connection, over all addresses of a peer. */
export const DIAL_DEADLINE_MS = 5_000
/** Time for one address, so that one that never answers does not use up the others' time. */
export const ADDRESS_DIAL_DEADLINE_MS = 1_500
/** How often a node asks by multicast who is there; everybody hears every answer. */
export const DISCOVERY_INTERVAL_MS = 10_000
/** Time until a new session has said hello. */
export const HELLO_DEADLINE_MS = 5_000
/** A peer with requests open that delivered nothing for this long is stalled: its requests go to others. */
export const PROGRESS_DEADLINE_MS = 2_000
/** A stalled peer that stays silent this long is disconnected. */
export const STALL_DISCONNECT_MS = 15_000
/** How long a restore waits for a first peer before it gives up. */
export const PEER_WAIT_MS = 20_000
/** How long a restore waits for somebody to hold a block that nobody connected holds. */
export const HOLDER_WAIT_MS = 15_000
/** A fetch whose peers deliver nothing at all for this long gives up. */
export const NO_DELIVERY_MS = 60_000
/** Whole request and reply on the join and metadata protocols. */
export const REQUEST_DEADLINE_MS = 10_000

/** Peers dialled at the same time. */
export const MAX_PARALLEL_DIALS = 16
/** How often the list of peers to dial is looked at. */
export const DIAL_TICK_MS = 500
/** How long a restore that needs peers waits for newer metadata before it goes on with what it trusts. */
export const METADATA_WAIT_MS = 3_000
/** How often the master looks whether its metadata is to be renewed, and its disk has changed. */
export const RENEW_TICK_MS = 60 * 60 * 1000
export const DISK_WATCH_TICK_MS = 5_000
/** One control request or reply, and the time for it. */
export const MAX_CONTROL_BYTES = 4 * 1024 * 1024
export const CONTROL_DEADLINE_MS = 15_000
/** Default port of a mesh node. */
export const DEFAULT_PORT = 7433
/** Default life of an invitation. */
export const DEFAULT_INVITATION_MS = 60 * 60 * 1000

/** One read of a scan: long enough for the disk to stream, short enough to share between workers. */
export const SCAN_RUN_BYTES = 4 * 1024 * 1024
/** Most threads that hash. */
export const MAX_HASH_WORKERS = 4
/** Hash pages kept in memory per open tree. */
export const TREE_CACHE_BYTES = 16 * 1024 * 1024
/** Positions of one content that are tried before it is called missing. */
export const MAX_LOCATIONS_PER_DIGEST = 16
/** Blocks found by a scan at another place than they belong that a restore remembers for copying. */
export const MAX_DISPLACED_BLOCKS = 256 * 1024
/** Bytes written to the disk between two flushes of a restore. */
export const RESTORE_BATCH_BYTES = 8 * 1024 * 1024
