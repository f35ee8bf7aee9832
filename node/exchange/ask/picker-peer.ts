import type { Bitmap } from '../../../protocol/bitmap.ts'
import type { IndexSet } from './index-set.ts'

/** What a {@link BlockPicker} knows of one peer. */
export interface PickerPeer {
  readonly id: string
  /** What it has; undefined for everything. */
  have: Bitmap | undefined
  /** What of that is to be asked; undefined for everything that is. */
  options: IndexSet | undefined
  /** It had what is wanted when it came, and gained nothing since. */
  isSource: boolean
  /** It holds other images, and what is known of it was found by content: it fetches nothing of this one. */
  readonly elsewhere: boolean
  /** It is fetching the image as well, and has its share of what only sources have. */
  isMember: boolean
  /** 0 near, 1 reluctant, 2 far: who costs more is asked only for what nobody who costs less has. */
  cost: 0 | 1 | 2
  near: boolean
  reluctant: boolean
  /** When it last gained something, or came. */
  gainedAt: number
  bytesPerSecond: number | undefined
  /** Items it is asked for. */
  asked: number
  /** Behind the item it was last asked for; -1 before. */
  cursor: number
}

/** A request for an item that is open. */
export interface Ask {
  readonly peer: PickerPeer
  readonly at: number
}

export function peerHas({ have }: PickerPeer, index: number): boolean {
  return have === undefined || have.has(index)
}
