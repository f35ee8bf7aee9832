import type { Bitmap } from '../../../protocol/bitmap.ts'
import type { IndexSet } from './index-set.ts'

/** What asking a peer costs: 0 near and willing, 1 near and reluctant, 2 ({@link FAR}) behind the uplink. */
export type Cost = 0 | 1 | 2

/** What a peer behind the uplink costs. */
export const FAR: Cost = 2

/** What a {@link BlockPicker} knows of one peer. */
export interface PickerPeer {
  readonly id: string
  /** Items it has; undefined: all. */
  have: Bitmap | undefined
  /** Items it has that are to be asked; undefined: all that are to be asked. */
  options: IndexSet | undefined
  /** Whether it had what is wanted when it came, and gained nothing since. */
  isSource: boolean
  /** Whether it holds other images: what is known of it was found by content, and it fetches nothing of this image. */
  readonly elsewhere: boolean
  /** Whether it is fetching the image as well, and so has its share of what only sources have. */
  isMember: boolean
  /** A peer is asked only for what no peer has that costs less. */
  cost: Cost
  /** When it last gained something, or came. */
  gainedAt: number
  /** What it delivers; undefined: not measured yet. */
  bytesPerSecond: number | undefined
  /** How many items it is asked for. */
  asked: number
  /** The item behind the one it was last asked for; -1: it was asked for nothing yet. */
  cursor: number
}

/** Whether a peer is on this side of the uplink. */
export function isNear({ cost }: PickerPeer): boolean {
  return cost !== FAR
}

/** Whether a peer has an item. */
export function peerHas({ have }: PickerPeer, index: number): boolean {
  return have === undefined || have.has(index)
}
