/** What the member list says of the network cards of a machine. */
interface ListedCards {
  readonly name: string
  /** Addresses as in the member list. */
  readonly mac: readonly string[]
}

/**
 * Notices machines that have none of the network cards any more that the member list knows: a card was replaced, so that the machine
 * cannot be powered on by Wake-on-LAN, or the disk is in another machine.
 */
export class CardWatch {
  readonly #warn: (text: string) => void
  /** The cards that machines have now, by peer id, if they are others. */
  readonly #other = new Map<string, readonly string[]>()

  constructor(warn: (text: string) => void) {
    this.#warn = warn
  }

  /** A machine has these cards now; `isSelf`: it is this one. Warns once for the same cards. */
  seen(id: string, listed: ListedCards | undefined, now: readonly string[], isSelf = false): void {
    const isOther = listed !== undefined && areOthers(listed.mac, now)
    const before = this.#other.get(id)?.join()
    if (!isOther) this.#other.delete(id)
    else this.#other.set(id, now)
    if (!isOther || before === now.join()) return
    const who = isSelf ? `this machine, ${listed.name},` : listed.name
    this.#warn(
      `${who} has none of the network cards that the member list knows (${listed.mac.join(', ')}), but ${now.join(', ')}: Wake-on-LAN does not reach it. If a card was replaced, run \`mesh join\` there with a new token; if the disk was copied from another machine, see “A copied machine” in the handbook`,
    )
  }

  /** The cards that a machine has now, if they are others than the member list knows. */
  of(id: string): readonly string[] | undefined {
    return this.#other.get(id)
  }
}

/** Nothing can be said of a machine with no card that is known, such as one that is off the network. */
function areOthers(listed: readonly string[], now: readonly string[]): boolean {
  return listed.length > 0 && now.length > 0 && !now.some((address) => listed.includes(address))
}
