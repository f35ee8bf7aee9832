import type { Bitmap } from '../../protocol/bitmap.ts'

/** Facts that hold for all machines of a simulated lab. */
export interface LabFacts {
  readonly blocks: number
  readonly blockBytes: number
  /** Milliseconds from one machine to any other. */
  readonly latencyMs: number
  /** Milliseconds from the receipt of a block until it is verified, written, flushed and told to the others. */
  readonly offerMs: number
  /** Speed of the link that connects each site to the others. */
  readonly uplinkBytesPerMs: number
}

/** One machine of a simulated lab. Times in simulated milliseconds. */
export interface MachineFacts {
  readonly name: string
  /** Speed of its link in each direction. */
  readonly bytesPerMs: number
  /** Name of its LAN. Blocks of another LAN cross the uplink. */
  readonly site: string
  /** Blocks that it holds at the start. */
  readonly have: Bitmap
  /** Whether the machine is the master, which is dialled before other machines elsewhere. */
  readonly isMaster: boolean
  /** Whether the others ask it last. */
  readonly reluctant?: boolean
  /** Whether it sends wrong bytes. */
  readonly lies?: boolean
  /** Time at which it falls silent. It stays connected. */
  readonly stallsAtMs?: number
  /** Time at which it goes away, and at which it comes back with what it had flushed. */
  readonly away?: { readonly fromMs: number; readonly untilMs: number }
}
