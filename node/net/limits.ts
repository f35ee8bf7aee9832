/** Limits of connections and streams. */

/** Received bytes of one stream that may wait for their consumer before the sender is stopped. */
export const STREAM_BACKLOG_BYTES = 2 * 1024 * 1024
/** The same of a stream that the peer has opened: requests are small. */
export const SERVED_BACKLOG_BYTES = 256 * 1024
/** Who has not taken a single byte of what was sent to it for this long loses the stream. */
export const UNTAKEN_MS = 30_000
/** Receive window of a yamux stream that this machine opens, announced when the stream begins: at most libp2p's read buffer of 4 MiB. */
export const STREAM_WINDOW_BYTES = 4 * 1024 * 1024
/** What is sent in one turn of the event loop travels together, until it is so many bytes: a quarter of the window. */
export const SEND_GATHER_BYTES = 256 * 1024
/** More than this is not held up until the end of the turn on its way to the socket. */
export const SEND_SMALL_BYTES = 4 * 1024
/** Streams of one protocol that one peer may open to us at a time, over all its connections. */
export const MAX_STREAMS_PER_PROTOCOL = 8
/** Streams of all protocols, libp2p's own among them, that one peer may open to us at a time on one connection. */
export const MAX_STREAMS_PER_CONNECTION = 64
/** Streams that a peer may open on one connection at once, and each second: it pings once in 10 s, and opens a broken stream twice a second. */
export const STREAMS_BURST = 512
export const STREAMS_PER_SECOND = 20
/** Connections of one peer: two machines often dial each other at once, and those of a machine that lost its power stay for 30 s. */
export const MAX_CONNECTIONS_PER_PEER = 8
/** Time to open a connection, over all addresses of a peer. */
export const DIAL_DEADLINE_MS = 5_000
/** Time until something answers at one address: a first packet that is lost is sent again after 1 s. */
export const ADDRESS_DIAL_DEADLINE_MS = 1_500
/** The next address of a peer is tried so long after the one before (RFC 8305, section 8). */
export const DIAL_STAGGER_MS = 250
/** Or so long after somebody answered at one, which most often is the peer: then a second connection would be of no use. */
export const HANDSHAKE_STAGGER_MS = 1_000
/** How often a connection is looked at that nothing comes through. */
export const SILENCE_TICK_MS = 5_000
/** Looks after which a silent connection is dead: 25 s. A peer sends something every 10 s, by libp2p's connection monitor. */
export const SILENCE_TICKS = 5
/** How often this machine looks at its own network cards. */
export const NETWORK_TICK_MS = 1_000
/** How often a node asks by multicast who is there; everybody hears every answer. */
export const DISCOVERY_INTERVAL_MS = 10_000
/** A question of multicast DNS is answered after a random time between these, and on one card once a second (RFC 6762, section 6). */
export const ANSWER_JITTER_MS = [20, 120] as const
export const ANSWER_AGAIN_MS = 1_000
/** A restore begins with so many connections, and makes as many more each time that so long has passed. */
export const DIAL_STEP_PEERS = 4
export const DIAL_STEP_MS = 250
/** Connections that a machine keeps to other sites as long as it lacks nothing. */
export const FAR_PEERS = 4
/** A switch with spanning tree lets nothing through for 30 s after a link came up; some time is left for DHCP, and for being found. */
export const LINK_SETTLE_MS = 45_000
/** So long what needs peers waits for the link of a card that had one. */
export const LINK_LOST_PATIENCE_MS = 5 * 60 * 1000
/** A link that came up once, on a computer that runs for longer than this, in seconds, came up when the computer was started. */
export const LINK_OLD_UPTIME_S = 180
