/** Limits of serving: turns, buffers, compression. */

/** Level of zstd that blocks are compressed at: 3 is a quarter slower for 3 % fewer bytes, negative levels are no faster. */
export const COMPRESSION_LEVEL = 1
/** A compressed answer is sent only if it is at most this part of the plain one. */
export const COMPRESSED_AT_MOST = 0.9
/** Pieces of a block, evenly spread, that tell whether compressing the block is worth trying. */
export const PROBE_PIECES = 16
/** Bytes of one such piece. */
export const PROBE_PIECE_BYTES = 64
/** Answers that a server compresses at a time, over all clients. */
export const MAX_PACKING = 2
/** Answers that wait to be compressed, over all clients; what comes beyond these is sent plain. */
export const MAX_WAITING_TO_PACK = 256
/** Clients that want something at the same time are served so many bytes each in turn. */
export const SERVE_QUANTUM_BYTES = 64 * 1024
/** Bytes of answers to one client that its stream has not taken yet. */
export const SERVE_PORTION_BYTES = 256 * 1024
/** Bytes of answers to all clients together that their streams have not taken yet. */
export const SERVE_BUFFER_BYTES = 16 * 1024 * 1024
/** Bytes that are read and hashed at most in one turn, before the queue is looked at again. */
export const SERVE_TURN_BYTES = 4 * 1024 * 1024
/** A slow disk makes turns smaller, down to so many bytes. */
export const SERVE_TURN_MIN_BYTES = 256 * 1024
/** A turn that takes longer than this makes the next one half as large. */
export const SERVE_TURN_MS = 50
/** With a limit on the rate a client's requests are taken on up to what the client gets in this time. */
export const SERVE_QUEUE_MS = 1_000
/** With a limit on the rate a client's requests are taken on up to so many bytes, however low the limit. */
export const SERVE_QUEUE_MIN_BYTES = 256 * 1024
/** A limit on the rate lets through at once what it grants in this time. */
export const SERVE_BURST_MS = 100
/** A limit on the processor lets through at once what it grants in this time. */
export const SERVE_CPU_WINDOW_MS = 1_000
/**
 * Milliseconds of processor time that one turn of serving may take. A small share owes that for longer than one window: a share
 * of 0.01 for 2.5 s.
 */
export const SERVE_CPU_TURN_MS = 25
/** How long answers that the uplink holds back wait at most before it is looked at again. */
export const SERVE_GATE_TICK_MS = 1_000
/** The rate that `mesh status` shows is smoothed over this time. */
export const SERVE_METER_MS = 5_000
/** With a limit on peers: how long one peer is served while others wait. */
export const SERVE_PLACE_MS = 2_000
/** With a limit on peers: a peer that asks for nothing for this long gives up its place. */
export const SERVE_PLACE_IDLE_MS = 200
/**
 * What a client may make a server do for nothing: units of about 50 µs at once, and units a second, which is a twentieth of a core. An honest
 * client cancels requests that somebody else has answered, and asks a server anew that was busy: a few hundred units.
 */
export const ASK_BURST = 20_000
export const ASK_PER_SECOND = 1_000
/** Requests that are refused as long as this machine is busy, runs of blocks, and digests to be looked up, that one unit is good for. */
export const ASK_IDS_PER_UNIT = 64
export const ASK_RUNS_PER_UNIT = 256
export const FIND_DIGESTS_PER_UNIT = 256
/**
 * Requests for nothing that one unit is good for: those beyond the credit, those that are called back, and those that wait when their stream ends.
 * Each was read, and put into a queue and taken out of it, which takes about 6 µs and 500 bytes until V8 collects them. The
 * bytes count more: 160,000 requests made a machine that restored grow by 44 MiB, 40,000 by 19.
 */
export const ASK_WASTED_PER_UNIT = 2
/** Members that come, or are found, within so short a time are told of in one message. */
export const PEERS_DELAY_MS = 500
/** A client that was told of a member hears of the same one again, at other addresses, after this time at the earliest. */
export const PEERS_AGAIN_MS = 60_000
/** What one message tells of where members are; a longer list is sent in several. */
export const MAX_PEERS_MESSAGE_BYTES = 64 * 1024
