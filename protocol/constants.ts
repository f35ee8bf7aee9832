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
export const EXCHANGE_PROTOCOL = '/lab-mesh/exchange/2'
export const METADATA_PROTOCOL = '/lab-mesh/metadata/1'
export const JOIN_PROTOCOL = '/lab-mesh/join/1'
export const OPERATE_PROTOCOL = '/lab-mesh/operate/1'

/** A frame's protobuf header; the largest is a have map of many runs. */
export const MAX_FRAME_HEADER_BYTES = 256 * 1024
/** The level under which the list of an image's repeats is asked for, as its only page; no tree is so high. */
export const REPEATS_LEVEL = 64
/** How long a restore waits for that list once it has the tree: it does without, too. */
export const REPEATS_WAIT_MS = 1_000
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
/** A peer that holds other images is asked for blocks that fewer machines than this are known to have. */
export const FIND_HOLDERS = 3
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

/** Bytes of requested, unanswered blocks one server grants one client. */
export const SESSION_CREDIT_BYTES = 8 * 1024 * 1024
/** What is gained or lost in so short a time is told to peers in one message. */
export const HAVE_DELAY_MS = 200
/** Bytes a client asks of one peer before it knows the peer's speed. */
export const FIRST_PEER_WINDOW_BYTES = 512 * 1024
/** Bytes a client asks of one peer at least, however slow. */
export const MIN_PEER_WINDOW_BYTES = 128 * 1024
/** Time for which requests may wait at a peer, so that its link never idles. */
export const PEER_QUEUE_MS = 200
/** A peer's speed is measured over so long a time, or so many bytes. */
export const WINDOW_ROUND_MS = 50
export const WINDOW_ROUND_BYTES = 4 * 1024 * 1024
/** The window is doubled as long as a peer delivers so much more than before. */
export const WINDOW_GROWTH = 1.25
/** Of a peer's window so much is free before it is asked for more, so that requests travel together. */
export const ASK_TOGETHER = 0.5
/** Level of zstd that blocks are compressed at: 3 is a quarter slower for 3 % fewer bytes, negative levels are no faster. */
export const COMPRESSION_LEVEL = 1
/** A compressed answer is sent only if it is at most this part of the plain one. */
export const COMPRESSED_AT_MOST = 0.9
/** zstd: binary logarithm of the largest window a client takes memory for; a block is no larger. */
export const COMPRESSION_WINDOW_LOG = Math.log2(MAX_BLOCK_SIZE_BYTES)
/** Bytes of a block, in evenly spread pieces, that tell whether compressing it is worth trying. */
export const PROBE_PIECES = 16
export const PROBE_PIECE_BYTES = 64
/** Answers a server compresses at a time, over all clients; and how many wait for that before others are sent plain. */
export const MAX_PACKING = 2
export const MAX_WAITING_TO_PACK = 256
/** What compressing and unpacking one answer costs besides its bytes: the way to a thread and back, making a context. */
export const PACK_OVERHEAD_MS = 0.2
export const UNPACK_OVERHEAD_MS = 0.06
/** Until it was measured a link has 100 Mbit/s, bytes per second. */
export const ASSUMED_LINK_RATE = 12.5e6
/** Likewise what zstd does on one core of a small machine (bytes of content per second), and to what part it compresses. */
export const ASSUMED_PACK_RATE = 200e6
export const ASSUMED_UNPACK_RATE = 400e6
export const ASSUMED_RATIO = 0.5
/** Answers so large tell the speed of zstd, in bytes; smaller ones are mostly overhead. */
export const COMPRESSION_SAMPLE_BYTES = 32 * 1024
/** Clients that want something at the same time are served so many bytes each in turn. */
export const SERVE_QUANTUM_BYTES = 64 * 1024
/** Answers to one client that its stream has not taken yet, and to all clients together. */
export const SERVE_PORTION_BYTES = 256 * 1024
export const SERVE_BUFFER_BYTES = 16 * 1024 * 1024
/** What is read and hashed at most before the queue is looked at again; less when a slow disk took longer than this. */
export const SERVE_TURN_BYTES = 4 * 1024 * 1024
export const SERVE_TURN_MIN_BYTES = 256 * 1024
export const SERVE_TURN_MS = 50
/** Neighbouring blocks are read together up to this length. */
export const SERVE_READ_BYTES = 1024 * 1024
/** So long answers are made at most before the rest of the process has its turn. */
export const SERVE_SLICE_MS = 4
/** With a limit on the rate a client's requests are taken on up to what it gets in this time, and at least so many bytes. */
export const SERVE_QUEUE_MS = 1_000
export const SERVE_QUEUE_MIN_BYTES = 256 * 1024
/** A limit on the rate or on the processor lets through at once what it grants in this time. */
export const SERVE_BURST_MS = 100
export const SERVE_CPU_WINDOW_MS = 1_000
/** Milliseconds of processor time that one turn of serving may take; with a small share it is longer owed than one window. */
export const SERVE_CPU_TURN_MS = 25
/** How long answers that the uplink holds back wait at most before it is looked at again. */
export const SERVE_GATE_TICK_MS = 1_000
/** The rate that `mesh status` shows is smoothed over this time. */
export const SERVE_METER_MS = 5_000
/** With a limit on peers: how long one is served while others wait, and how soon one that asks nothing gives up its place. */
export const SERVE_PLACE_MS = 2_000
export const SERVE_PLACE_IDLE_MS = 200
/** When a busy server wants to be asked again. */
export const BUSY_RETRY_MIN_MS = 50
export const BUSY_RETRY_MAX_MS = 1_000
/** Limits on serving that a user may give: slower links make clients think that the server is stalled. */
export const MIN_UPLOAD_BITS = 1_000_000
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
/** Pages that a peer with other images says in a row not to have before it is asked for no more of a level. */
export const PAGE_GUESSES = 8
/** How often a fetch looks for stalled peers, missing holders and slow last requests. */
export const FETCH_TICK_MS = 200
/** A request this old may be asked of a second peer when nothing else is left to ask. */
export const ENDGAME_AGE_MS = 400
/** The items of an image are divided among the machines that fetch it in groups of consecutive ones, so many at most. */
export const SHARE_GROUPS = 64 * 1024
/** Items of other machines' shares that a machine whose own is all asked may have on their way from one source. */
export const STRAY_ITEMS = 1
/** Sources are spared as long as more than this part of what is to be asked is theirs alone. */
export const SOURCE_ONLY_SHARE = 1 / 8
/**
 * Before anything is asked for over the uplink: how long after the last machine of the site was met, when all are there; how
 * long when some are not; and how long at most.
 */
export const FAR_QUIET_MS = 100
export const FAR_PATIENCE_MS = 2_000
export const FAR_PATIENCE_MAX_MS = 15_000
/** What a far peer's link is taken to carry until that is measured, bytes per second: blocks are compressed from the first on. */
export const FAR_ASSUMED_LINK_RATE = 1.25e6
/** A far peer with requests open is stalled, and disconnected, later than a near one: many share its link. */
export const FAR_PROGRESS_DEADLINE_MS = 20_000
export const FAR_STALL_DISCONNECT_MS = 60_000
/** How long those of a site who hear of a release at about the same time count on each other to fetch it, too. */
export const EXPECTED_MS = 2_000
/** What all machines of a site together have on its way over the uplink; and one of them at least, in blocks. */
export const FAR_WINDOW_BYTES = 2 * 1024 * 1024
export const FAR_WINDOW_MIN_ITEMS = 2
/** A rule of the uplink has so many parts at most, each of so many bits per second at least. */
export const MAX_UPLINK_RULES = 16
export const MIN_UPLINK_BITS = 64_000
/** What a rate of the uplink grants in this time may be saved up. */
export const UPLINK_BURST_MS = 300
/** What is asked for over the uplink is told to the site in so short a time, together. */
export const CLAIM_DELAY_MS = 20
/** What has come over the uplink so long ago is known to others as held, and no longer claimed. */
export const CLAIM_KEEP_MS = 15_000
/**
 * How long a machine that has everything stays at most for those who need from it what came over the uplink last, and how often
 * it looks whether they still do.
 */
export const HAND_OVER_MS = 3_000
export const HAND_OVER_TICK_MS = 50
/** What somebody claims, and has not got for so long, others ask for themselves. */
export const CLAIM_LIFE_MS = 30_000
/** How often a machine says that it goes on fetching over the uplink, and when the others no longer believe it. */
export const FETCHING_BEAT_MS = 2_000
export const FETCHING_SILENT_MS = 6_000
/** A machine that holds part of an image and gained nothing for this long is not fetching it. */
export const FETCHER_SILENT_MS = 5_000
/** Starting points tried, and items looked at from each, for one choice of what to ask. */
export const PICK_PROBES = 4
export const PICK_SAMPLE = 32
/** Open requests looked at for one that is to be asked twice. */
export const DUPLICATE_SAMPLE = 64
/** A request is asked twice only if that brings it so many times sooner. */
export const DUPLICATE_FACTOR = 2
/** What a peer is taken to deliver before that is known. */
export const UNKNOWN_BYTES_PER_SECOND = 1024 * 1024
/** First and longest pause before a broken session, or a peer that could not be dialled, is tried again. */
export const RETRY_MIN_MS = 500
export const RETRY_MAX_MS = 15_000
/** Bytes one restore keeps in flight and undelivered, over all peers. */
export const FETCH_WINDOW_BYTES = 8 * 1024 * 1024
/** Received bytes of one stream that may wait for their consumer before the sender is stopped. */
export const STREAM_BACKLOG_BYTES = 2 * 1024 * 1024
/** Receive window of a yamux stream: the same on every node, and at most libp2p's read buffer of 4 MiB. */
export const STREAM_WINDOW_BYTES = 4 * 1024 * 1024
/** What is sent in one turn of the event loop travels together, until it is so many bytes: a quarter of the window. */
export const SEND_GATHER_BYTES = 256 * 1024
/** More than this is not held up until the end of the turn on its way to the socket. */
export const SEND_SMALL_BYTES = 4 * 1024
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

/** One request or answer of the operate protocol, and requests that one client may have open on its stream. */
export const MAX_OPERATE_BYTES = 256 * 1024
export const MAX_OPERATE_REQUESTS_OPEN = 16
/** The document of a group's roll, and one signed receipt, as text. */
export const MAX_ROLL_BYTES = 64 * 1024
export const MAX_RECEIPT_BYTES = 32 * 1024
/** Peers that a signed receipt names. */
export const MAX_RECEIPT_PEERS = 64
/** Receipts of one machine that are kept, there and where they are gathered: more than a year of nights. */
export const RECEIPTS_PER_MACHINE = 400
/** How often receipts are gathered, and how many pages of one machine at a time. */
export const GATHER_TICK_MS = 5 * 60_000
export const GATHER_PAGES = 16
/** How soon after a machine has come it is asked for its receipts. */
export const GATHER_ARRIVED_MS = 1_000
/** How long a command waits for receipts that it had gathered anew. */
export const GATHER_WAIT_MS = 12_000
/** Receipts in one answer of the control socket. */
export const RECEIPTS_PER_CONTROL_PAGE = 200
/** How long somebody who uses a machine may be warned before it is reset. */
export const MAX_WARNING_SECONDS = 3600
/** A reset that was granted runs no sooner, so that the answer is on its way before the network goes. */
export const RESET_DELAY_MS = 500
/** Time for the commands that warn and that reset. */
export const RESET_COMMAND_DEADLINE_MS = 60_000
/** Receipts in one answer, and their text. */
export const MAX_RECEIPTS_PER_PAGE = 64
export const RECEIPT_PAGE_BYTES = 96 * 1024
/** How long a command that started a node of its own waits for members that it wants to ask. */
export const OPERATOR_CONNECT_MS = 5_000
/** Members that one command asks through the running one at a time: their answers fit into one control reply. */
export const OPERATOR_BATCH = 32

/** Peers dialled at the same time. */
export const MAX_PARALLEL_DIALS = 16
/** How often the list of peers to dial is looked at. */
export const DIAL_TICK_MS = 250
/** A restore begins with so many connections, and makes as many more each time that so long has passed. */
export const DIAL_STEP_PEERS = 4
export const DIAL_STEP_MS = 250
/** Connections that a machine keeps to other sites as long as it lacks nothing. */
export const FAR_PEERS = 4
/** How long a restore that needs peers waits for newer metadata before it goes on with what it trusts. */
export const METADATA_WAIT_MS = 3_000
/** How long a restore looks for machines that have all of a newer release before it stays with the one on the disk. */
export const MOVE_WAIT_MS = 10_000
/** How often the master looks whether its metadata is to be renewed, and its disk has changed. */
export const RENEW_TICK_MS = 60 * 60 * 1000
export const DISK_WATCH_TICK_MS = 5_000
/** One control request or reply, and the time for it. */
export const MAX_CONTROL_BYTES = 4 * 1024 * 1024
export const CONTROL_DEADLINE_MS = 15_000
/** Default port of a mesh node. */
export const DEFAULT_PORT = 7433

/** One read of a scan: long enough for the disk to stream, short enough to share between workers. */
export const SCAN_RUN_BYTES = 4 * 1024 * 1024
/** Most threads that hash. */
export const MAX_HASH_WORKERS = 4
/** A thread costs as much CPU time as hashing this: for less a command that hashes itself starts none. */
export const HASH_WORKER_WORTH_BYTES = 128 * 1024 * 1024
/** Hash trees that a lab machine keeps of each image: its newest releases, besides the one on the disk. */
export const TREES_KEPT = 8
/** Hash pages kept in memory per open tree. */
export const TREE_CACHE_BYTES = 16 * 1024 * 1024
/**
 * Repeats are found by granules chosen by their content, one in so many, more for an image of which as many would be more than
 * this; what lies around them is compared.
 */
export const MIN_ANCHOR_BITS = 2
export const MAX_ANCHORS = 1024 * 1024
/** Pairs of granules that look alike that are remembered, and how many of them may turn out not to be. */
export const MAX_REPEAT_CANDIDATES = 128 * 1024
export const MAX_REPEAT_MISSES = 1024
/** Copying what repeats comes after all else, which is worth while if it spares so many bytes. */
export const REPEATS_WORTH_BYTES = 512 * 1024
/** Positions of one content that are tried before it is called missing. */
export const MAX_LOCATIONS_PER_DIGEST = 16
/** Blocks found by a scan at another place than they belong that a restore remembers for copying. */
export const MAX_DISPLACED_BLOCKS = 256 * 1024
/** Bytes, and blocks (of which perhaps only parts are written), between two flushes of a restore. */
export const RESTORE_BATCH_BYTES = 8 * 1024 * 1024
export const RESTORE_BATCH_BLOCKS = 4096
/** Blocks in memory whose writes are under way, in bytes. */
export const RESTORE_WRITING_BYTES = 8 * 1024 * 1024
/** Blocks of a coming release that a machine keeps beside its disk, in bytes, unless the user says otherwise. */
export const STAGE_SPACE_BYTES = 4 * 1024 ** 3
/** What staging leaves free of the file system, and blocks it keeps at most: each takes about 100 bytes of memory. */
export const STAGE_RESERVE_BYTES = 256 * 1024 ** 2
export const STAGE_MAX_BLOCKS = 256 * 1024
/** Staged blocks are made durable when so many bytes have come, or this time is over. */
export const STAGE_FLUSH_BYTES = 8 * 1024 * 1024
export const STAGE_FLUSH_MS = 1_000
/** With a limit on its rate so much is asked for at a time: what that grants in this time, and at least so many blocks. */
export const STAGE_PORTION_MS = 1_000
export const STAGE_PORTION_BLOCKS = 4
/** While somebody uses the machine: this share of the rate that was given, or this rate in bytes per second. */
export const STAGE_IN_USE_SHARE = 0.25
export const STAGE_IN_USE_RATE = 2 * 1024 * 1024
/** When staging that found nobody, or what the machine's own session changed meanwhile, is looked at again. */
export const STAGE_RETRY_MS = 10_000
/** How often a connected member is asked whether there is newer metadata, though it would have said so. */
export const NEWS_POLL_MS = 10 * 60_000
/** Of the blocks that a log calls clean, how many are hashed after a restore: this share, and at least so many. */
export const AUDIT_SHARE = 0.005
export const AUDIT_MIN_BLOCKS = 64
/** If nothing had to be restored the audit takes no longer than this, so that the boot goes on; `mesh up` does the rest. */
export const AUDIT_BOOT_BUDGET_MS = 50

/**
 * How often a serving machine looks at the log of its disk: our own bitmap, and a tracker that has to be asked, which takes
 * time and with dm-era makes first writes slow again. Blocks are hashed before they are sent in any case.
 */
export const LOG_WATCH_TICK_MS = 500
export const TRACKER_WATCH_TICK_MS = 5 * 60_000
/** A log that is being written may look damaged for a moment. */
export const LOG_PEEK_TRIES = 5
export const LOG_PEEK_PAUSE_MS = 20
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

/** NBD: longest request that is served; the specification's own limit for clients that were told none. */
export const NBD_MAX_REQUEST_BYTES = 32 * 1024 * 1024
/** NBD: size of requests that clients are advised to use at least, and the page of the kernel's cache. */
export const NBD_PREFERRED_BYTES = 4096
/** NBD: connections at a time. */
export const NBD_MAX_CONNECTIONS = 64
/** NBD: data of one option of the handshake, and how many options a client may send. */
export const NBD_MAX_OPTION_BYTES = 64 * 1024
export const NBD_MAX_OPTIONS = 256
/** NBD: time from connecting to the first request. */
export const NBD_HANDSHAKE_DEADLINE_MS = 15_000
/** NBD: a client that does not take its last answers within this time is disconnected when the server stops. */
export const NBD_CLOSE_DEADLINE_MS = 5_000
/** NBD: what one connection may have under way, in requests and in bytes (a longer single request is let through). */
export const NBD_MAX_REQUESTS_UNDER_WAY = 64
export const NBD_MAX_BYTES_UNDER_WAY = 32 * 1024 * 1024
/** NBD: pieces of writes that one connection may have in the hands of threads. */
export const NBD_MAX_PIECES_UNDER_WAY = 64
/** NBD: buffers that are kept for the next request, over all connections. */
export const NBD_POOL_BYTES = 32 * 1024 * 1024
/** NBD: extents in one reply to a block status request. */
export const NBD_MAX_EXTENTS = 64 * 1024
/** Unit in which a qcow2 file over the disk keeps its own records: 16 MiB of them for 1 TiB. */
export const QEMU_CLUSTER_BYTES = 512 * 1024
/** Time for one run of qemu-img, what it may print, and how often a qemu-nbd that starts is looked for. */
export const QEMU_TOOL_DEADLINE_MS = 120_000
export const QEMU_OUTPUT_BYTES = 4 * 1024 * 1024
export const QEMU_POLL_MS = 5
/** NBD client: time to connect and agree with a server, and for the answer to one request. */
export const NBD_CONNECT_DEADLINE_MS = 10_000
export const NBD_REPLY_DEADLINE_MS = 30_000
/** NBD client: time for a goodbye. */
export const NBD_GOODBYE_DEADLINE_MS = 1_000
/** NBD client: extents that are taken in one answer; QEMU sends up to 131,072. */
export const NBD_MAX_EXTENTS_TAKEN = 1024 * 1024
/** NBD client: longest request it sends; longer reads and writes are cut into parts of this length. */
export const NBD_CLIENT_REQUEST_BYTES = 1024 * 1024
/** NBD client: bytes one block status request asks about at most; its length has 32 bits. */
export const NBD_STATUS_BYTES = 4 * 1024 ** 3 - 64 * 1024
/** NBD client: requests a server may want to be multiples of at most this, to be fit for a write log. */
export const NBD_LOG_ALIGNMENT_BYTES = 512
/** Zeros that are written at a time. */
export const LOG_ZERO_BYTES = 1024 * 1024
/** Transfers up to this length are made at once, without a thread, as long as the page cache answers. */
export const QUICK_TRANSFER_BYTES = 1024 * 1024
/** A quick transfer that ran slower than this, plus what copying costs, had to wait for the disk (an SSD takes 0.1 ms). */
export const QUICK_SLOW_MS = 0.1
export const QUICK_SLOW_MS_PER_MIB = 1
/** For this many times as long as the wait no other quick transfer is tried, so that waits take 5 % of the time at most. */
export const QUICK_PAUSE_FACTOR = 20

/** A machine's configuration file. */
export const MAX_CONFIG_BYTES = 64 * 1024
/** Time for one hook after a restore, and what it may print; the rest is not kept. */
export const HOOK_TIMEOUT_MS = 60_000
/** A hook that is to end is killed after so long. */
export const HOOK_GRACE_MS = 5_000
export const HOOK_OUTPUT_BYTES = 64 * 1024
/** Hooks in one directory. */
export const MAX_HOOKS = 100

/** Machines of one roll: its document must fit a message of 64 KiB. */
export const MAX_ROLL_MACHINES = 128
/** How often the operator of a roll looks at the machines, and how long it waits for the answer of one. */
export const ROLL_TICK_MS = 1_000
/** So often a roll's document is written anew, which tells others that its operator is alive; silent so long, it is not. */
export const ROLL_BEAT_MS = 5_000
export const ROLL_SILENT_MS = 20_000
/** How often the list of members is read anew during a roll. */
export const ROLL_MEMBERS_MS = 10_000
/** A machine that was told to reset and runs on as before is told again after this time. */
export const ROLL_ASK_AGAIN_MS = 15_000
/** Port that packets for powering on go to: nobody listens there, network cards look at all. */
export const WAKE_PORT = 9
