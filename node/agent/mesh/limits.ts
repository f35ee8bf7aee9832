/** Limits of meeting other members. */

/** Peers dialled at the same time. A switched-off peer holds its place until its dial times out. */
export const MAX_PARALLEL_DIALS = 16
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
