import { dialRank, dialRoom } from '../../net/dial-rule.ts'
import type { TrustView } from '../../trust/trusted-view.ts'

/** What a node knows at this moment about its connections and about what is to be fetched. */
interface Connections {
  /** Peer ids of the connected members. */
  readonly connected: ReadonlySet<string>
  /** Set for a restore: milliseconds since its node was started. */
  readonly restoringMs: number | undefined
  /** Something is to be fetched that no connected member has. */
  readonly starves: boolean
  /** Something is to be fetched that no near member has, as far as is known. */
  readonly needsFar: boolean
}

/**
 * Which members are near and which are far, seen from this machine, and how many of them are worth a connection. Near is who has
 * the same site in the signed list; a machine that is not in the list (yet) takes everybody for near.
 */
export class Neighbourhood {
  readonly #view: () => Pick<TrustView, 'members' | 'memberById'>
  readonly #self: string

  /** `view`: the signed list, as it is trusted now; `self`: peer id of this machine. */
  constructor(view: () => Pick<TrustView, 'members' | 'memberById'>, self: string) {
    this.#view = view
    this.#self = self
  }

  /** Whether a peer stands in the LAN of this machine. A peer that is not in the list counts as near. */
  isNear(peerId: string): boolean {
    const view = this.#view()
    const own = view.memberById(this.#self)
    return own === undefined || own.site === (view.memberById(peerId)?.site ?? own.site)
  }

  /** Name and site of a member elsewhere; undefined for one that is near. */
  whoIsFar(peerId: string): { readonly name: string; readonly site: string } | undefined {
    return this.isNear(peerId) ? undefined : this.#view().memberById(peerId)
  }

  /** Whether something is true of each near member, this machine left out. */
  everyNear(isTrue: (peerId: string) => boolean): boolean {
    return this.#view().members.every(({ id }) => id === this.#self || !this.isNear(id) || isTrue(id))
  }

  /** Whether a member is the master, which other machines spare. */
  isMaster(peerId: string): boolean {
    return this.#view().memberById(peerId)?.role === 'master'
  }

  /** When a member is dialled: those with a lower rank before those with a higher one. */
  rank(peerId: string): number {
    return dialRank({ near: this.isNear(peerId), isMaster: this.isMaster(peerId) })
  }

  /** How many more connections to members of a rank are worth having. */
  room(rank: number, { connected, ...facts }: Connections): number {
    return dialRoom(rank, {
      ...facts,
      directs: this.#view().memberById(this.#self)?.role !== 'machine',
      connected: connected.size,
      connectedFar: [...connected].filter((peerId) => !this.isNear(peerId)).length,
    })
  }
}
