import type { Bitmap } from '../../protocol/bitmap.ts'

/** What is the same for all machines of a simulated lab. */
export interface LabFacts {
  readonly blocks: number
  readonly blockBytes: number
  /** From one machine to any other. */
  readonly latencyMs: number
  /** From the receipt of a block until it is verified, written, flushed and told to the others. */
  readonly offerMs: number
  /** Of what each site is connected by to the others. */
  readonly uplinkBytesPerMs: number
}

/** One machine of a simulated lab. Times in simulated milliseconds. */
export interface MachineFacts {
  readonly name: string
  /** Of both directions of its link. */
  readonly bytesPerMs: number
  /** Its LAN; what comes from another one crosses the uplink. */
  readonly site: string
  /** What it holds at the start. */
  readonly have: Bitmap
  /** It is dialled before others that are elsewhere. */
  readonly isMaster: boolean
  /** The others ask it last. */
  readonly reluctant?: boolean
  /** Sends wrong bytes. */
  readonly lies?: boolean
  /** Falls silent at this time, but stays connected. */
  readonly stallsAtMs?: number
  /** Goes away, and comes back with what it had flushed. */
  readonly away?: { readonly fromMs: number; readonly untilMs: number }
}
