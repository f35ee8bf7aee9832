import type { RangeSet } from '../../../protocol/ranges.ts'

/** What a fellow last said of one image that it fetches over the uplink. */
export interface Statement {
  /** Level of the tree that it fetches; 0: blocks. */
  readonly level: number
  /** Items that it has asked for over the uplink. */
  readonly claimed: RangeSet
  /** When it said so, in milliseconds. */
  readonly at: number
}

/**
 * The fellows of this machine: the other machines of the site that fetch an image over the uplink, as they say themselves.
 * Images are named by their root in hexadecimal.
 */
export class Fellows {
  readonly #statements = new Map<string, Map<string, Statement>>()

  /** How many machines of the site fetch something over the uplink, this one not included. */
  get count(): number {
    let count = 0
    for (const roots of this.#statements.values()) if (roots.size > 0) count++
    return count
  }

  /** What a fellow last said of an image; undefined if it does not fetch that over the uplink. */
  of(peerId: string, root: string): Statement | undefined {
    return this.#statements.get(peerId)?.get(root)
  }

  /** Peer ids of all that were ever heard and are not gone, in the order in which they were first heard. */
  ids(): string[] {
    return [...this.#statements.keys()]
  }

  /** A fellow says something of an image; undefined: that it no longer fetches the image. */
  say(peerId: string, root: string, statement: Statement | undefined): void {
    const roots = this.#statements.get(peerId) ?? new Map<string, Statement>()
    this.#statements.set(peerId, roots)
    if (statement === undefined) roots.delete(root)
    else roots.set(root, statement)
  }

  /** A machine was disconnected. */
  remove(peerId: string): void {
    this.#statements.delete(peerId)
  }

  /** Forgets what was said at `time` or before, and returns what that was. */
  expire(time: number): { readonly peerId: string; readonly root: string }[] {
    const expired: { readonly peerId: string; readonly root: string }[] = []
    for (const [peerId, roots] of this.#statements)
      for (const [root, { at }] of roots) {
        if (at > time) continue
        roots.delete(root)
        expired.push({ peerId, root })
      }
    return expired
  }
}
