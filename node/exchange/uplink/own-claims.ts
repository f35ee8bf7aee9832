import { RangeSet, type Run } from '../../../protocol/ranges.ts'

/**
 * What this machine claims of one image: items that it has asked for over the uplink, and items that came that way a short
 * time ago. The other machines of the site need not ask for these over the uplink.
 */
export class OwnClaims {
  /** When each claimed item came; undefined while it is on its way. */
  readonly #cameAt = new Map<number, number | undefined>()

  /** An item is asked for over the uplink. */
  asked(index: number): void {
    this.#cameAt.set(index, undefined)
  }

  /** An item is no longer asked for over the uplink, and did not come. */
  returned(index: number): void {
    this.#cameAt.delete(index)
  }

  /** An item is here; if it was not claimed, it is not claimed now. */
  came(index: number, now: number): void {
    if (this.#cameAt.has(index)) this.#cameAt.set(index, now)
  }

  /** Forgets what came before `time`: the others know by then that this machine holds it. */
  forget(time: number): void {
    for (const [index, at] of this.#cameAt) if (at !== undefined && at < time) this.#cameAt.delete(index)
  }

  /** Everything that is claimed. */
  all(): RangeSet {
    return RangeSet.from([...this.#cameAt.keys()].map((index): Run => [index, index + 1]))
  }

  /** Claimed items that are still on their way. */
  open(): number[] {
    return [...this.#cameAt].flatMap(([index, at]) => (at === undefined ? [index] : []))
  }

  /** Claimed items that have come. */
  arrived(): number[] {
    return [...this.#cameAt].flatMap(([index, at]) => (at === undefined ? [] : [index]))
  }
}
