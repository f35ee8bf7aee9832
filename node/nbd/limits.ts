/** Limits of the NBD server and client. */

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
