/** Holds answers to some clients back, beyond the limits that hold for all clients. */
export interface ServeGate {
  /** Milliseconds until a client may be sent something. */
  waitMs(client: string): number
  /** Bytes that are about to be sent to a client, or (negative) were not sent after all. */
  spend(client: string, bytes: number): void
  /** Bytes were sent to a client, for an item of this level of a tree (0: a block). */
  sent(client: string, level: number, bytes: number): void
}
