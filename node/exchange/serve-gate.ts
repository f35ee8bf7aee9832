/** Who may be answered now, besides what holds for all clients. */
export interface ServeGate {
  /** Milliseconds until a client may be sent something. */
  waitMs(client: string): number
  /** Bytes that are about to be sent to a client, or (negative) were not sent after all. */
  spend(client: string, bytes: number): void
  sent(client: string, level: number, bytes: number): void
}
