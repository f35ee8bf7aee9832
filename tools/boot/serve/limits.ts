/** Limits of letting machines start by network. */

/** Port of the web server: one above that of the mesh. */
export const DEFAULT_HTTP_PORT = 7434
/** Connections at a time: a room of 100 machines with two each. */
export const MAX_CONNECTIONS = 256
/** Connections of one address at a time: iPXE and UEFI open one or two. */
export const MAX_CONNECTIONS_PER_ADDRESS = 8
/** A request has few headers; iPXE sends 200 bytes. */
export const MAX_HEADER_BYTES = 8 * 1024
/** Until the headers of a request are there. */
export const HEADERS_DEADLINE_MS = 10_000
/** How long a connection may stand still. One whose other side reads nothing stands twice as long: Node looks first whether its queue has moved. */
export const STALL_MS = 30_000
/** Longest time of one file: 60 MB at 70 kB/s, less than 30 machines get on a cable of 100 Mbit/s. */
export const TRANSFER_DEADLINE_MS = 15 * 60 * 1000
/** What is read of a file ahead of one connection. */
export const READ_AHEAD_BYTES = 256 * 1024

/** Until dnsmasq says that it serves. */
export const DNSMASQ_START_MS = 10_000
/** Until dnsmasq has ended that was asked to. */
export const DNSMASQ_END_MS = 2_000
/** Last lines of dnsmasq that an error names. */
export const KEPT_LINES = 5
/** Longest line of dnsmasq that is looked at. */
export const MAX_LINE_BYTES = 2 * 1024
/** Transfers by TFTP at a time. */
export const MAX_TFTP_TRANSFERS = 200
/** How long an address is lent out by `--dhcp`. */
export const LEASE_TIME = '2h'
/** Most addresses of `--dhcp`; dnsmasq keeps each in memory. */
export const MAX_RANGE = 65_536

/** How long another DHCP server has to answer: the usual ones first try for 3 s whether an address is free. */
export const PROBE_MS = 4_000
/** How often it is asked within that time. */
export const PROBE_EVERY_MS = 1_500

/** Machines that are remembered; the one that was heard of longest ago goes first. */
export const MAX_MACHINES = 1_024
/** A machine that gets no further for so long is told: a slow firmware takes 20 s for one step. */
export const STUCK_MS = 90_000
/** The same while it may be loading the agent: 30 machines share a cable, and TFTP waits for an answer to each packet. */
export const STUCK_TRANSFER_MS = 10 * 60 * 1000
/** How often that is looked at, and whether this machine still has its address. */
export const LOOK_EVERY_MS = 2_000
/** A ROM that asks again within this time goes on with the same start. */
export const SAME_START_MS = 10_000

/** Longest time of the programs that list the rules of the firewall, and what they print. */
export const FIREWALL_DEADLINE_MS = 5_000
export const FIREWALL_OUTPUT_BYTES = 16 * 1024 ** 2
/** Until a connection to this machine itself is made or refused. */
export const CONNECT_DEADLINE_MS = 2_000
