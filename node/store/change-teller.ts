import { RangeSet } from '../../protocol/ranges.ts'
import type { HoldingChange } from './block-source.ts'
import { HAVE_DELAY_MS } from './limits.ts'

/**
 * Tells listeners which blocks are newly held and which are not held any more. Changes within 200 ms are told together.
 * A block that changed twice is told as it stands at the end.
 */
export class ChangeTeller {
  readonly #isHeld: (index: number) => boolean
  readonly #listeners = new Set<(change: HoldingChange) => void>()
  /** Blocks whose state changed since the listeners were last told. */
  #touched: number[] = []

  constructor(isHeld: (index: number) => boolean) {
    this.#isHeld = isHeld
  }

  onChange(listener: (change: HoldingChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Notes that a block has changed. It is told later, together with others, because each telling is a message to every
   * peer.
   */
  changed(index: number): void {
    this.#touched.push(index)
    if (this.#touched.length > 1) return
    setTimeout(() => {
      const touched = this.#touched
      this.#touched = []
      const gained = RangeSet.from(touched.filter(this.#isHeld).map((i) => [i, i + 1]))
      const lost = RangeSet.from(touched.filter((i) => !this.#isHeld(i)).map((i) => [i, i + 1]))
      for (const listener of this.#listeners) listener({ gained, lost })
    }, HAVE_DELAY_MS).unref()
  }
}
