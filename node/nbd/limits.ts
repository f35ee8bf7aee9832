/** Limits of the NBD server and client. */

/** Server: bytes of the longest request that is served. Clients that were told no limit keep to 32 MiB (proto.md). */
export const NBD_MAX_REQUEST_BYTES = 32 * 1024 * 1024
/** Server: clients are advised to ask for at least a page of the kernel's cache: of less the kernel reads a page all the same. */
export const NBD_PREFERRED_BYTES = 4096
/** Server: connections at a time, of all clients together. One more takes the place of the client that is idle the longest. */
export const NBD_MAX_CONNECTIONS = 64
/** Server: bytes of data of one option of the handshake, and options that one client may send. */
export const NBD_MAX_OPTION_BYTES = 64 * 1024
export const NBD_MAX_OPTIONS = 256
/** Server: time from connecting to the end of the handshake, so that silent clients free their connection. */
export const NBD_HANDSHAKE_DEADLINE_MS = 15_000
/** Server: a client that takes nothing of its answers for so long is disconnected, if others need its room or its place. */
export const NBD_STALL_MS = 5_000
/** Server: a server that stops waits so long for a client to take its last answers, then disconnects it. */
export const NBD_CLOSE_DEADLINE_MS = 5_000
/** Server: requests of one connection that are under way, and their bytes. One request alone may be longer. */
export const NBD_MAX_REQUESTS_UNDER_WAY = 64
export const NBD_MAX_BYTES_UNDER_WAY = 32 * 1024 * 1024
/** Server: bytes that each connection may always have in memory, whoever holds the rest: what a kernel reads ahead. */
export const NBD_OWN_BYTES = 256 * 1024
/** Server: bytes that all connections together may have in memory beyond that: one longest request fits. */
export const NBD_SHARED_BYTES = 32 * 1024 * 1024
/** Server: pieces of writes of one connection that threads are writing. */
export const NBD_MAX_PIECES_UNDER_WAY = 64
/** Server: bytes of buffers that are kept for later requests, of all connections together. */
export const NBD_POOL_BYTES = 32 * 1024 * 1024
/** Server: extents in one reply to a block status request: 512 KiB of them. */
export const NBD_MAX_EXTENTS = 64 * 1024
/** Client: time to connect and to agree with a server, and for the answer to one request. */
export const NBD_CONNECT_DEADLINE_MS = 10_000
export const NBD_REPLY_DEADLINE_MS = 30_000
/** Client: time to say goodbye to a server that may be gone. */
export const NBD_GOODBYE_DEADLINE_MS = 1_000
/** Client: extents that are taken in one answer. QEMU sends up to 131,072. */
export const NBD_MAX_EXTENTS_TAKEN = 1024 * 1024
/** Client: bytes of one request. Longer reads and writes are cut into parts of 1 MiB, several of which are under way. */
export const NBD_CLIENT_REQUEST_BYTES = 1024 * 1024
/** Client: bytes that one block status request asks about. Its length has 32 bits. */
export const NBD_STATUS_BYTES = 4 * 1024 ** 3 - 64 * 1024
/** Client: a write log needs single sectors, so a server whose requests must be multiples of more bytes is refused. */
export const NBD_LOG_ALIGNMENT_BYTES = 512
