import assert from 'node:assert/strict'

interface Member {
  readonly id: string
  readonly salt: number
}

/**
 * Divides groups of items among machines that do not talk about it, by rendezvous hashing (Thaler and Ravishankar, 1998). A group
 * belongs to the member with the greatest hash of group and member; its heir is the member with the next greatest. Machines that
 * see the same members divide alike. When a member comes or leaves, only its own groups move.
 */
export class Shares {
  /** The groups that are divided. */
  readonly #groups: readonly number[]
  readonly #self: Member
  readonly #members = new Map<string, Member>()
  /** Owner and heir of each group. */
  readonly #owners: Member[] = []
  readonly #heirs: (Member | undefined)[] = []

  constructor(self: string, groups: readonly number[]) {
    this.#groups = groups
    this.#self = { id: self, salt: saltOf(self) }
    this.#members.set(self, this.#self)
    for (const group of groups) this.#owners[group] = this.#self
  }

  /** How many machines divide the groups, this one included. */
  get members(): number {
    return this.#members.size
  }

  /** Whether a group belongs to this machine. */
  isOwn(group: number): boolean {
    return this.#owners[group] === this.#self
  }

  /** Whether a group would be this machine's if its owner left. */
  isHeir(group: number): boolean {
    return this.#heirs[group] === this.#self
  }

  /** A member comes. Returns the groups that got another owner or heir, where this machine is or was one of these. */
  join(id: string): number[] {
    assert(!this.#members.has(id), `${id} joins twice`)
    const member = { id, salt: saltOf(id) }
    this.#members.set(id, member)
    const changed: number[] = []
    for (const group of this.#groups) {
      const [owner, heir] = [this.#owners[group]!, this.#heirs[group]]
      if (isGreater(group, member, owner)) {
        this.#owners[group] = member
        this.#heirs[group] = owner
        if (owner === this.#self || heir === this.#self) changed.push(group)
      } else if (heir === undefined || isGreater(group, member, heir)) {
        this.#heirs[group] = member
        if (heir === this.#self) changed.push(group)
      }
    }
    return changed
  }

  /** A member leaves. Returns the same as {@link join}. */
  leave(id: string): number[] {
    const member = this.#members.get(id)
    assert(member !== undefined && member !== this.#self, `${id} leaves`)
    this.#members.delete(id)
    const left = [...this.#members.values()]
    const changed: number[] = []
    for (const group of this.#groups) {
      const [owner, heir] = [this.#owners[group]!, this.#heirs[group]]
      if (owner !== member && heir !== member) continue
      const next = owner === member ? heir! : owner
      this.#owners[group] = next
      this.#heirs[group] = greatest(group, left, next)
      if (next === this.#self || this.#heirs[group] === this.#self) changed.push(group)
    }
    return changed
  }
}

function greatest(group: number, members: readonly Member[], except: Member): Member | undefined {
  let best: Member | undefined
  for (const one of members) if (one !== except && (best === undefined || isGreater(group, one, best))) best = one
  return best
}

function isGreater(group: number, a: Member, b: Member): boolean {
  const [x, y] = [mix(group, a.salt), mix(group, b.salt)]
  return x > y || (x === y && a.id > b.id)
}

/** FNV-1a, 32 bits. */
function saltOf(id: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193)
  return hash >>> 0
}

/** Two rounds of the finalizer of MurmurHash3, which spreads every bit of both over all 32. */
function mix(group: number, salt: number): number {
  return finalize(finalize(group + 0x9e3779b9) ^ salt)
}

function finalize(value: number): number {
  let hash = value | 0
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
