import { MAX_BLOCK_SIZE_BYTES } from '../../../protocol/constants.ts'

/** Limits of asking: windows of peers, shares, patience. */

/** A peer that holds other images is asked for blocks that fewer machines than this are known to have. */
export const FIND_HOLDERS = 3
/** Bytes a client asks of one peer before it knows the peer's speed. */
export const FIRST_PEER_WINDOW_BYTES = 512 * 1024
/** Bytes a client asks of one peer at least, however slow. */
export const MIN_PEER_WINDOW_BYTES = 128 * 1024
/** Time for which requests may wait at a peer, so that its link never idles. */
export const PEER_QUEUE_MS = 200
/** A peer's speed is measured over rounds of this length. */
export const WINDOW_ROUND_MS = 50
/** A round ends sooner when a peer has delivered so many bytes. */
export const WINDOW_ROUND_BYTES = 4 * 1024 * 1024
/** The window is doubled as long as a peer delivers so much more than before. */
export const WINDOW_GROWTH = 1.25
/** This part of a peer's window is free before the peer is asked for more, so that requests travel together. */
export const ASK_TOGETHER = 0.5
/** zstd: binary logarithm of the largest window a client takes memory for; a block is no larger. */
export const COMPRESSION_WINDOW_LOG = Math.log2(MAX_BLOCK_SIZE_BYTES)
/** What compressing one answer costs besides its bytes: the way to a thread and back, making a context. */
export const PACK_OVERHEAD_MS = 0.2
/** What unpacking one answer costs besides its bytes: making a context. */
export const UNPACK_OVERHEAD_MS = 0.06
/** What a link is taken to carry until that is measured, bytes per second: 100 Mbit/s. */
export const ASSUMED_LINK_RATE = 12.5e6
/** Content that zstd is taken to compress until that is measured, bytes per second: on one core of a small machine. */
export const ASSUMED_PACK_RATE = 200e6
/** Content that zstd is taken to unpack until that is measured, bytes per second: on one core of a small machine. */
export const ASSUMED_UNPACK_RATE = 400e6
/** The part of its size that zstd is taken to compress content to until that is measured. */
export const ASSUMED_RATIO = 0.5
/** Answers of so many bytes tell the speed of zstd; smaller ones are mostly overhead. */
export const COMPRESSION_SAMPLE_BYTES = 32 * 1024
/** A peer with other images that lacks so many pages of a level in a row is asked for no more of that level. */
export const PAGE_GUESSES = 8
/** How often a fetch looks for stalled peers, missing holders and slow last requests. */
export const FETCH_TICK_MS = 200
/** A request this old may be asked of a second peer when nothing else is left to ask. */
export const ENDGAME_AGE_MS = 400
/** The items of an image are divided among the machines that fetch it in groups of consecutive items, at most so many groups. */
export const SHARE_GROUPS = 64 * 1024
/** Items of others' shares that a machine may have on their way from one source, once it has asked for all of its own. */
export const STRAY_ITEMS = 1
/** Sources are spared as long as more than this part of what is to be asked is theirs alone. */
export const SOURCE_ONLY_SHARE = 1 / 8
/** A far peer with requests open that delivered nothing for this long is stalled; many machines share its link. */
export const FAR_PROGRESS_DEADLINE_MS = 20_000
/** A far peer that is stalled and stays silent this long is disconnected. */
export const FAR_STALL_DISCONNECT_MS = 60_000
/** An item that a machine claims and has not got for this long is asked for by the others themselves. */
export const CLAIM_LIFE_MS = 30_000
/** A machine that holds part of an image and gained nothing for this long is not fetching it. */
export const FETCHER_SILENT_MS = 5_000
/** Places from which one choice of what to ask looks for the rarest item. */
export const PICK_PROBES = 4
/** Items looked at from each of these places. */
export const PICK_SAMPLE = 32
/** Open requests that are looked at for one that is to be asked twice. */
export const DUPLICATE_SAMPLE = 64
/** A request is asked twice only if that brings it so many times sooner. */
export const DUPLICATE_FACTOR = 2
/** What a peer is taken to deliver before that is measured, bytes per second. */
export const UNKNOWN_BYTES_PER_SECOND = 1024 * 1024
/** Bytes one restore keeps in flight and undelivered, over all peers. */
export const FETCH_WINDOW_BYTES = 8 * 1024 * 1024
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
/**
 * Runs of blocks that are kept of an image that a peer holds and no manifest names yet. A machine that holds all of it tells of one run;
 * one that holds more runs is asked anew when the image is known.
 */
export const MAX_UNKNOWN_RUNS = 256
/** A near peer that is asked and delivers less for SLOW_MS spares no dearer peer: a link of 2 Mbit/s. */
export const SLOW_BYTES_PER_SECOND = 256 * 1024
/** Such a peer counts again when it delivers so much for SLOW_MS. */
export const PROVEN_BYTES_PER_SECOND = 512 * 1024
/** For how long a peer is looked at before its standing changes. */
export const SLOW_MS = 1_000
/**
 * What a server may tell a client unasked: units at once, and units a second. An honest one tells every 200 ms what has changed, and at
 * first of all blocks: of an image of 100 GiB in 64 KiB blocks, every second block of which is held, that is about 3,300 units.
 */
export const NEWS_BURST = 20_000
export const NEWS_PER_SECOND = 200
/** Runs of blocks, and blocks, that one unit is good for. */
export const NEWS_RUNS_PER_UNIT = 256
export const NEWS_BLOCKS_PER_UNIT = 16 * 1024
/** Units of one signed record of addresses: to verify a signature takes about 150 µs. 4096 members, told of at once, fit. */
export const NEWS_UNITS_PER_RECORD = 4
