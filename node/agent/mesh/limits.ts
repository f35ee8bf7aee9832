/** Limits of meeting other members, and of letting strangers ask whether they may become one. */

/** Peers dialled at the same time. A switched-off peer holds its place until its dial times out. */
export const MAX_PARALLEL_DIALS = 16
/** A machine signs its addresses again after a day, though they are the same: they count for 30 days. */
export const SIGN_ADDRESSES_AGAIN_MS = 24 * 3600 * 1000
/** Addresses of one member that multicast DNS tells of, and that were not seen to work: the last ones. */
export const MAX_HEARSAY = 4
/** How members behave is stored so often, as far as it has changed: a process that is killed forgets one minute. */
export const KEEP_CONDUCT_MS = 60_000
/** Addresses of one member that are dialled at once, and each minute, whoever tells of them. */
export const MEMBER_DIALS_BURST = 64
export const MEMBER_DIALS_PER_MINUTE = 120
/** Pause between two looks at the list of peers to dial. */
export const DIAL_TICK_MS = 250
/** An address of a peer where somebody else answered is not tried again for so long, whoever tells of it. */
export const WRONG_ADDRESS_MS = 10 * 60 * 1000
/** Time that a restore that needs peers waits for newer metadata before it goes on with what it trusts. */
export const METADATA_WAIT_MS = 3_000
/** How often a command that waits for its first peer looks whether one has come. */
export const FIRST_PEER_TICK_MS = 20
/** The longest time that a peer is not asked for metadata after its claims came to nothing. */
export const DOUBT_MAX_MS = 10 * 60 * 1000
/** Whoever may join reads the signed metadata for so long without being a member. */
export const GUEST_MS = 60_000
/**
 * A peer with two connections is asked who answers on each after 1 s, on at most 4 of them: two machines often dial each other at once.
 * If one does not answer, it may be starting, or its machine has lost its power, which shows after 30 s: so the others are asked again.
 */
export const IDENTITY_LOOK_MS = 1_000
export const IDENTITY_LOOKS = 10
export const MAX_LINKS_LOOKED_AT = 4
/** Members are asked for their clocks for 3 s, and for 1 s after the first answer; three answers are enough. */
export const CLOCK_WAIT_MS = 3_000
export const CLOCK_SETTLE_MS = 1_000
export const CLOCK_ANSWERS = 3
/**
 * Machines that may ask the master at one time to be enrolled, in all and from one address (several may stand behind one router), and the
 * bytes of what they say of themselves: 512 machines with two disks each say about 200 KiB.
 */
export const MAX_WAITING = 512
export const MAX_WAITING_PER_ADDRESS = 128
export const MAX_WAITING_BYTES = 1024 * 1024
/** Who waits asks again every 2 s; who has not asked for 2 minutes was switched off. */
export const ENROL_AGAIN_MS = 2_000
export const WAITING_FORGOTTEN_MS = 120_000
/** Who finds no room with the master asks again after this. */
export const ENROL_LATER_MS = 30_000
/** A machine never asks more often than this, and never less often than that, whatever it is told. */
export const ENROL_AGAIN_BOUNDS_MS = [250, 60_000] as const
/** The master answers one stranger no faster than this. */
export const ENROL_PACE_MS = 100
/** Connections of strangers that the master has at one time, in all and from one address, and how long one of them lasts. */
export const MAX_STRANGERS = 256
export const MAX_STRANGERS_PER_ADDRESS = 128
export const STRANGER_MS = 120_000
/** Connections that one of them has: a second one may come while the first is being ended. */
export const MAX_STRANGER_CONNECTIONS = 2
/** A refusal holds for 30 days, or until the machine is approved. */
export const REFUSAL_MS = 30 * 24 * 3600 * 1000
/** An approval of a machine that waits holds for so long, so that a machine that is being started anew still finds it. */
export const APPROVAL_MS = 3600 * 1000
/** Peers that say they are of the site, of which a machine that looks for the master remembers the addresses, and how many it asks at a time. */
export const MAX_CANDIDATES = 256
export const CANDIDATES_AT_A_TIME = 16
