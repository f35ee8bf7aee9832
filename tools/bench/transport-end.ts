/** Requests that are open at the same time when many small answers are fetched. */
export const SMALL_DEPTH = 64

/** One node with one connection to another like it. */
export interface TransportEnd {
  readonly peerId: string
  readonly address: string
  connect(peerId: string, address: string): Promise<void>
  /** Asks once, and takes `count` payloads of `size` bytes. */
  bulk(count: number, size: number): Promise<void>
  /** Asks for each of `count` payloads by a request of its own, SMALL_DEPTH requests at a time. */
  small(count: number, size: number): Promise<void>
}
